# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, RUF001  a case is one line, in the letters of its shop
"""The columns of every shop and marketplace that is known: id, name, picture, and what is not for sale."""

import io
import json

import pytest

from ugen_provider.core.feeds import FeedError, FeedMapping, FeedOrder, RejectedRow, SkippedRow, plan_feed, read_feed
from ugen_provider.core.feeds.layouts import canonical, plain_name
from ugen_provider.core.feeds.reader import open_feed

PICTURE = "https://img.example/1.jpg"


def planned(text, **options):
    source = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    return list(plan_feed(source, job_defaults={"segment_count": 1}, **options))


def lines(*rows):
    return "\n".join(rows) + "\n"


def jsonl(*rows):
    return lines(*map(json.dumps, rows))


YANDEX = (
    '<yml_catalog><shop><offers><offer id="1" available="true"><typePrefix>Desk</typePrefix><vendor>Acme</vendor>'
    f"<model>Lamp</model><picture>{PICTURE}</picture><currencyId>EUR</currencyId></offer></offers></shop></yml_catalog>"
)
SHOPS = {
    "google tsv": (
        "google",
        lines("id\ttitle\tdescription\timage link\tadditional image link\tavailability\tprice",
              f"1\tLamp\tWarm.\t{PICTURE}\t\tin stock\t10 USD"),
        0,
    ),
    "meta": (
        "meta",
        lines("# Required | id,# Required | title,#,#,#,#", "id,title,image[0].url,status,visibility,fb_product_category",
              f"1,Lamp,{PICTURE},active,published,home", f"2,Old,{PICTURE},archived,published,home",
              f"3,Hidden,{PICTURE},active,hidden,home", f"4,Staged,{PICTURE},active,staging,home"),
        3,
    ),
    "tiktok": ("tiktok", lines("sku_id,title,image_link,availability", f"1,Lamp,{PICTURE},in stock"), 0),
    "pinterest": (
        "google",
        lines("id,title,description,link,image_link,price,availability", f"1,Lamp,Warm,https://s.example,{PICTURE},1,in stock"),
        0,
    ),
    "openai": (
        "openai",
        jsonl({"item_id": "1", "title": "Lamp", "image_url": PICTURE, "is_eligible_search": True},
              {"item_id": "2", "title": "Mug", "image_url": PICTURE, "is_eligible_search": False},
              {"item_id": "3", "title": "Cup", "image_url": PICTURE, "enable_search": "false"}),
        2,
    ),
    "shopify csv": (
        "shopify",
        lines("Handle,Title,Body (HTML),Vendor,Published,Image Src,Status",
              f"1,Lamp,<p>Warm.</p>,Acme,true,{PICTURE},active", "1,,,,,https://img.example/2.jpg,",
              f"2,Mug,,Acme,true,{PICTURE},draft", f"3,Cup,,Acme,false,{PICTURE},active",
              f"4,Jar,,Acme,true,{PICTURE},archived"),
        3,
    ),
    "shopify admin json": (
        "shopify",
        json.dumps({"products": [
            {"id": 1, "title": "Lamp", "body_html": "", "status": "active", "published_at": "2024", "images": [{"src": PICTURE}]},
            {"id": 2, "title": "Mug", "body_html": "", "status": "draft", "images": [{"src": PICTURE}]},
            {"id": 3, "title": "Cup", "body_html": "", "status": "active", "published_at": None, "images": [{"src": PICTURE}]},
        ]}),
        2,
    ),
    "shopify graphql": (
        "shopify",
        json.dumps({"data": {"products": {"edges": [
            {"node": {"id": "gid://shopify/Product/1", "title": "Lamp", "status": "ACTIVE", "featuredImage": {"url": PICTURE}}},
            {"node": {"id": "gid://shopify/Product/2", "title": "Mug", "status": "DRAFT", "featuredImage": {"url": PICTURE}}},
        ]}}}),
        1,
    ),
    "shopify bulk": (
        "shopify",
        jsonl({"id": "gid://shopify/Product/1", "title": "Lamp", "status": "ACTIVE"},
              {"id": "gid://shopify/ProductVariant/7", "price": "10.00", "__parentId": "gid://shopify/Product/1"},
              {"id": "gid://shopify/MediaImage/8", "image": {"url": PICTURE}, "__parentId": "gid://shopify/Product/1"},
              {"id": "gid://shopify/Product/2", "title": "Mug", "status": "ARCHIVED"},
              {"url": PICTURE, "__parentId": "gid://shopify/Product/2"}),
        1,
    ),
    "matrixify": (
        "shopify",
        lines("ID,Handle,Title,Body HTML,Status,Published,Top Row,Image Src",
              f"1,lamp,Lamp,Warm.,Active,TRUE,TRUE,{PICTURE}", "1,lamp,,,,,,https://img.example/2.jpg",
              f"2,mug,Mug,,Draft,FALSE,TRUE,{PICTURE}"),
        1,
    ),
    "woocommerce csv": (
        "woocommerce",
        lines("ID,Type,SKU,Name,Published,Visibility in catalog,Description,Images,Parent",
              f"1,variable,tee,Lamp,1,visible,Warm.,{PICTURE},", f"2,variation,tee-s,Lamp - S,1,visible,,{PICTURE},tee",
              f"3,simple,m,Mug,0,visible,,{PICTURE},", f"4,simple,c,Cup,1,hidden,,{PICTURE},"),
        3,
    ),
    "woocommerce rest": (
        "woocommerce",
        json.dumps([
            {"id": 1, "name": "Lamp", "status": "publish", "catalog_visibility": "visible", "images": [{"src": PICTURE}]},
            {"id": 2, "name": "Mug", "status": "private", "catalog_visibility": "visible", "images": [{"src": PICTURE}]},
            {"id": 3, "name": "Cup", "status": "publish", "catalog_visibility": "hidden", "images": [{"src": PICTURE}]},
        ]),
        2,
    ),
    "magento": (
        "magento",
        lines("sku,store_view_code,name,product_online,visibility,base_image",
              f'1,,Lamp,1,"Catalog, Search",{PICTURE}', f'2,,Mug,2,"Catalog, Search",{PICTURE}',
              f"3,,Cup,1,Not Visible Individually,{PICTURE}"),
        2,
    ),
    "prestashop": (
        "prestashop",
        lines("Product ID;Active (0/1);Name *;Categories (x,y,z...);Image URLs (x,y,z...);Available for order (0 = No, 1 = Yes)",
              f"1;1;Lamp;Home;{PICTURE},https://img.example/2.jpg;1", f"2;0;Mug;Home;{PICTURE};1", f"3;1;Cup;Home;{PICTURE};0"),
        2,
    ),
    "wix": (
        "wix",
        lines("handleId,fieldType,name,description,productImageUrl,sku,visible",
              "1,Product,Lamp,Warm.,abc~mv2.jpg;def~mv2.jpg,L1,true", "1,Variant,,,,L1-s,", "2,Product,Mug,,x~mv2.jpg,L2,false"),
        1,
    ),
    "bigcommerce": (
        "bigcommerce",
        lines("Item Type,Product ID,Product Name,Product Code/SKU,Product Visible?,Product Image File - 1",
              f"Product,1,Lamp,L1,Y,{PICTURE}", "SKU,,[S]Size=S,L1-s,,", f"Product,2,Mug,L2,N,{PICTURE}"),
        1,
    ),
    "content api": (
        "merchant",
        jsonl({"kind": "content#product", "id": "online:en:US:1", "offerId": "1", "title": "Lamp", "imageLink": PICTURE,
               "contentLanguage": "en", "targetCountry": "US", "channel": "online"}),
        0,
    ),
    "merchant api": (
        "merchant",
        json.dumps({"products": [{"name": "accounts/1/products/online~en~US~1", "offerId": "1", "contentLanguage": "en",
                                  "productAttributes": {"title": "Lamp", "imageLink": PICTURE,
                                                        "price": {"amountMicros": "10000000", "currencyCode": "USD"}}}]}),
        0,
    ),
    "amazon": (
        "amazon",
        lines("TemplateType=home\tVersion=2024\tThe top rows are for Amazon\t\t",
              "Seller SKU\tTitle\tMain Image URL\tBullet Point\tBullet Point",
              "item_sku\titem_name\tmain_image_url\tbullet_point1\tbullet_point2",
              f"1\tLamp\t{PICTURE}\tWarm light\tOak base"),
        0,
    ),
    "schema.org": (
        "schema_org",
        json.dumps({"@context": "https://schema.org", "@graph": [
            {"@type": "Product", "sku": "1", "name": "Lamp", "image": {"@type": "ImageObject", "contentUrl": PICTURE},
             "offers": {"price": "10", "availability": "https://schema.org/InStock"}},
            {"@type": "Product", "sku": "2", "name": "Mug", "image": [PICTURE],
             "offers": {"availability": "https://schema.org/Discontinued"}},
        ]}),
        1,
    ),
    "matrixify commands": (
        "shopify",
        lines("ID,Handle,Command,Title,Body HTML,Status,Published,Top Row,Image Src",
              f"1,lamp,MERGE,Lamp,Warm.,Active,TRUE,TRUE,{PICTURE}", f"2,mug,DELETE,Mug,,Active,TRUE,TRUE,{PICTURE}",
              f"3,cup,IGNORE,Cup,,Active,TRUE,TRUE,{PICTURE}"),
        2,
    ),
    "bigcommerce api": (
        "google",
        json.dumps({"data": [
            {"id": 1, "name": "Lamp", "is_visible": True, "images": [{"url_standard": PICTURE, "url_zoom": "https://img.example/z.jpg"}]},
            {"id": 2, "name": "Mug", "is_visible": False, "images": [{"url_standard": PICTURE}]},
        ]}),
        1,
    ),
    "schema.org page": (
        "schema_org",
        json.dumps({"@context": "https://schema.org", "@graph": [
            {"@type": "BreadcrumbList", "name": "Home"}, {"@type": ["Product"], "sku": "1", "name": "Lamp", "image": PICTURE},
            {"@type": "WebSite"},
        ]}),
        0,
    ),
    "objects by id": (
        "google",
        json.dumps({"1": {"title": "Lamp", "image_link": PICTURE, "status": "active"},
                    "2": {"title": "Mug", "image_link": PICTURE, "status": "draft"}}),
        1,
    ),
    "rows as lists": (
        "google",
        json.dumps([["id", "title", "image_link", "status"], [1, "Lamp", PICTURE, "active"], [2, "Mug", PICTURE, "draft"]]),
        1,
    ),
    "ceneo": (
        "google",
        f'<offers><o id="1" avail="1"><name>Lamp</name><imgs><main url="{PICTURE}"/><i url="{PICTURE}"/></imgs></o></offers>',
        0,
    ),
    "status by number": (
        "google", lines("Product ID;Image;Name;Status", f"1;{PICTURE};Lamp;1", f"2;{PICTURE};Mug;0"), 1,
    ),
    "heureka": (
        "google",
        f"<SHOP><SHOPITEM><ITEM_ID>1</ITEM_ID><PRODUCTNAME>Lamp</PRODUCTNAME><IMGURL>{PICTURE}</IMGURL></SHOPITEM></SHOP>",
        0,
    ),
    "yandex without a name": (
        "yandex",
        YANDEX,
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "left_out"), SHOPS.values(), ids=SHOPS)
def test_layout_of_shop_gives_one_order(kind, text, left_out):
    with open_feed(io.BytesIO(text.encode())) as opened:
        assert opened.kind == kind
    rows = planned(text)
    (order,) = [row for row in rows if isinstance(row, FeedOrder)]
    assert order.product_id in {"1", "gid://shopify/Product/1"}
    assert order.fields["product_name"] in {"Lamp", "Desk Acme Lamp"}
    assert order.fields["product_image_url"] in {PICTURE, "https://static.wixstatic.com/media/abc~mv2.jpg"}
    assert sum(isinstance(row, SkippedRow) for row in rows) == left_out
    assert not [row for row in rows if isinstance(row, RejectedRow)]


LANGUAGES = {
    "german": "ID;Titel;Beschreibung;Bildlink;Preis;Verfügbarkeit",
    "german shop": "Artikelnummer;Bezeichnung;Beschreibung;Bild;Preis;Bestand",
    "french": "identifiant;titre;description;lien image;prix;disponibilité",
    "spanish": "id;título;descripción;enlace imagen;precio;disponibilidad",
    "italian": "ID;titolo;descrizione;link immagine;prezzo;disponibilità",
    "dutch": "id;titel;beschrijving;afbeeldingslink;prijs;beschikbaarheid",
    "portuguese": "id;título;descrição;link da imagem;preço;disponibilidade",
    "polish": "identyfikator;tytuł;opis;link do obrazka;cena;dostępność",
    "czech": "id;název;popis;odkaz na obrázek;cena;dostupnost",
    "japanese": "商品ID;商品名;商品説明;商品画像リンク;価格;在庫状況",
    "chinese": "id;标题;描述;图片链接;价格;库存状态",
    "korean": "id;제목;설명;이미지 링크;가격;재고 상태",
    "russian": "id;название;описание;ссылка на изображение;цена;наличие",
    "turkish": "id;başlık;açıklama;resim linki;fiyat;durum",
    "swedish": "id;titel;beskrivning;bildlänk;pris;tillgänglighet",
    "decomposed letters": "id;tı\u0301tulo;x;imagen;y;z".replace("tı\u0301tulo", "ti\u0301tulo"),
}


@pytest.mark.parametrize("header", LANGUAGES.values(), ids=LANGUAGES)
def test_localized_header_is_known(header):
    (order,) = planned(f"{header}\n1;Lamp;Warm light.;{PICTURE};10;x\n")
    assert (order.product_id, order.fields["product_name"]) == ("1", "Lamp")
    assert order.fields["product_image_url"] == PICTURE


@pytest.mark.parametrize(
    ("column", "shown", "hidden"),
    [
        ("Publié", "1", ["0", "-1", "non", "FAUX"]),
        ("Veröffentlicht", "1", ["0", "-1", "nein", "FALSCH"]),
        ("Publicado", "sí", ["0", "no", "FALSO"]),
        ("Pubblicato", "sì", ["0", "no", "FALSO"]),
        ("Gepubliceerd", "ja", ["0", "nee", "ONWAAR"]),
        ("Opublikowano", "tak", ["0", "nie", "FAŁSZ"]),
        ("Publikováno", "ano", ["0", "ne", "NEPRAVDA"]),
        ("Опубликовано", "да", ["0", "нет", "ЛОЖЬ"]),
        ("公開", "はい", ["0", "いいえ", "FALSE"]),
        ("Sichtbar", "ja", ["nein", "0"]),
        ("Aktiv", "ja", ["nein", "0"]),
        ("Actif", "oui", ["non", "0"]),
        ("Statut", "actif", ["brouillon", "archivé", "inactif", "0"]),
        ("Estado", "activo", ["borrador", "archivado", "inactivo"]),
        ("Stato", "attivo", ["bozza", "archiviato"]),
        ("Status", "aktiv", ["Entwurf", "archiviert", "inaktiv"]),
        ("Status", "gepubliceerd", ["concept", "gearchiveerd"]),
        ("ステータス", "公開", ["下書き", "アーカイブ"]),
        ("Статус", "опубликован", ["черновик"]),
    ],
)
def test_localized_words_tell_what_is_for_sale(column, shown, hidden):
    rows = planned(lines(f"id;title;image_link;{column}", *(
        f"{number};Lamp;{PICTURE};{word}" for number, word in enumerate([shown, *hidden], 1)
    )))  # fmt: skip
    assert [type(row) for row in rows] == [FeedOrder, *[SkippedRow] * len(hidden)]
    assert {row.reason for row in rows[1:]} == {"not_for_sale"}


@pytest.mark.parametrize(
    "name", ["image_link", "Image Link", "image-link", "imageLink", "g:image_link", "IMAGE_LINK", "\ufeffimage link", '"image_link"',
             "image link *", "imageURL", "Image URL", "image url", "main_image_url", "Images", "image[0].url", "images.image",
             "images.url", "picture", "Bildlink", "image_1", "Image URLs (x,y,z...)"],
)  # fmt: skip
def test_name_of_picture_column_is_canonical(name):
    assert canonical(name)[0] == "image_link"


def test_unknown_layout_names_columns_and_mapping_lines():
    with pytest.raises(FeedError) as caught:
        planned("Nummer;Bez;Foto\n1;Lamp;x\n")
    for words in ("no column for id and title", "Nummer, Bez, Foto", "`id: Nummer` and `title: Bez`"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("written", "header", "row", "product_id", "name"),
    [
        ({"id": "Nummer", "title": "Bez"}, "Nummer;Bez;Bild", "7;Lamp", "7", "Lamp"),
        ({"id": "sku"}, "id;sku;title;image", "1;A1;Lamp", "A1", "Lamp"),
        ({"id": ["ean", "id"]}, "id;ean;title;image", "1;;Lamp", "1", "Lamp"),
        ({"id": "{sku}-{lang}"}, "sku;lang;title;image", "A1;de;Lamp", "A1-de", "Lamp"),
        ({"title": "{brand} {title}"}, "id;brand;title;image", "1;Acme;Lamp", "1", "Acme Lamp"),
        ({"title": ["seo title", "title"]}, "id;seo title;title;image", "1;;Lamp", "1", "Lamp"),
        ({"columns": {"product_name": "Vendor"}}, "id;Vendor;title;image", "1;Acme;Lamp", "1", "Acme"),
    ],
)
def test_mapping_names_id_and_title(written, header, row, product_id, name):
    cells = f"{row};{PICTURE}"
    (order,) = planned(f"{header}\n{cells}\n", mapping=FeedMapping.from_dict(written))
    assert (order.product_id, order.fields["product_name"]) == (product_id, name)


def test_row_without_the_mapped_id_is_rejected():
    rows = planned(
        f"id;sku;title;image\n1;;Lamp;{PICTURE}\n2;A2;Mug;{PICTURE}\n", mapping=FeedMapping.from_dict({"id": "sku"})
    )
    assert [type(row) for row in rows] == [RejectedRow, FeedOrder]


def test_plain_name_splits_camel_case_and_keeps_short_names():
    assert [plain_name(name) for name in ("imageURL", "handleId", "ID", "EAN13", "__parentId", "Body (HTML)")] == [
        "image_url", "handle_id", "id", "ean13", "__parent_id", "body_(html)",
    ]  # fmt: skip


def test_further_rows_of_a_product_add_pictures():
    (product,) = [row for row in read_feed(io.BytesIO(SHOPS["shopify bulk"][1].encode())) if row.id.endswith("/1")]
    assert (product.rows, product.image_links, product.price) == (3, (PICTURE,), "10.00")
