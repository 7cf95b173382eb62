# SPDX-License-Identifier: Apache-2.0
"""Names of columns in the feeds of shops and marketplaces, and their canonical names: Google's, in lower case."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Literal

Kind = Literal[
    "google", "shopify", "meta", "openai", "woocommerce", "magento", "prestashop", "wix", "bigcommerce", "tiktok",
    "pinterest", "amazon", "merchant", "schema_org", "yandex",
]  # fmt: skip
"""The shop or marketplace whose rules a feed follows; it selects the names of columns and the default mapping."""

_SEPARATORS = re.compile(r"[\s\-/:]+")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_HINT = re.compile(r"[_ ]*[(（][^()（）]*[)）][_ *]*$")
_NUMBERED = re.compile(r"(.*?[^\d_])(?:_?-_?)?_?(\d{1,2})")
_PATH = re.compile(r"(.+?)\[(\d+)\](?:\.(.+))?")
_PREFIX = re.compile(r"[A-Za-z_][\w.-]*:(?=\S)")

# ruff: noqa: RUF001  the names of columns are in all alphabets
_NAMES: Mapping[str, str] = {
    "id": """
        offer_id item_id sku_id product_id retailer_id item_sku seller_sku sku product_code_sku product_code
        product_sku product_number productno item_number handle_id handle url_handle variant_sku article_number
        artikelnummer artikel_nr artikelnr artnr id_product id_produit id_producto id_prodotto id_articolo
        id_produktu produkt_id artikel_id produktnummer identifiant identificador identificativo identyfikator
        kennung référence referencia 商品id 商品コード 商品番号 管理番号 商品管理番号 货号 产品id 상품id артикул
        ид id_товара ürün_id reference external_id unique_id product_reference uid uuid _id
        merchant_product_id aw_product_id custom_label
        """,
    "title": """
        name product_name product_title item_name productname title_en product display_name titel titre título
        titulo titolo tytuł název nazwa nom nombre nome naam namn navn nimi bezeichnung produktname artikelname
        artikelbezeichnung produktbezeichnung produkttitel nom_du_produit nom_produit nombre_del_producto
        nombre_producto nome_do_produto nome_produto nome_prodotto productnaam タイトル 商品名 商品タイトル 标题
        商品名称 产品名称 商品标题 標題 제목 상품명 заголовок название наименование başlık ürün_adı otsikko
        rubrik cím název_produktu tên headline label
        """,
    "description": """
        product_description body_html body_(html) body long_description full_description description_html
        description_text html_description text_(html) short_description description_short summary content
        beschreibung produktbeschreibung artikelbeschreibung beschreibungstext descripción descripcion
        descrizione omschrijving beschrijving descrição descricao opis popis beskrivning beskrivelse kuvaus
        leírás 説明 商品説明 商品の説明 本文_(html) 描述 商品描述 说明 설명 상품설명 описание açıklama
        corps_(html) cuerpo_(html) corpo_(html)
        """,
    "image_link": """
        image_url image main_image_link main_image_url main_image base_image image_src product_image_url
        product_image images imgs image_urls image_links picture pictures picture_url photo photos photo_url imgurl
        img_url img imageurl primary_image_url primary_image featured_image featured_media cover_image
        default_image media bildlink bild bild_url bildurl bild_src bild_link produktbild hauptbild bilder
        bildlänk lien_image lien_vers_l'image lien_d'image lien_de_l'image image_principale url_image
        url_de_l'image enlace_imagen enlace_de_imagen enlace_a_la_imagen imagen url_imagen url_de_imagen
        link_immagine immagine url_immagine afbeeldingslink afbeelding afbeeldings_url link_da_imagem
        link_imagem imagem url_da_imagem link_do_obrazka zdjęcie link_do_zdjęcia odkaz_na_obrázek obrázek
        画像リンク 商品画像リンク 画像 商品画像 画像url 商品画像url 画像の参照元 图片链接 图片 图片网址 商品图片
        이미지_링크 이미지 ссылка_на_изображение изображение картинка фото billedlink bildelenke kuvalinkki
        képlink resim_linki görsel_linki product_image_file product_image_file_1 internal_image_url
        image_url_(import) internal_image_url_(export) small_image thumbnail enclosure media_content
        media_thumbnail cover_media_url cover_url cover media_url hosted_image_urls hosted_image_url
        product_media_main_image_url image_name image_file big_image bigimage item_photo_url photo_link
        merchant_image_url large_image large_image_url image_large image_medium image_full_url full_image
        picture_link picture_urls image_location image_path 商品画像パス 画像パス image_uri img_link img_src
        imagen_principal imagem_principal immagine_principale hoofdafbeelding titelbild produktbilder bildpfad
        """,
    "additional_image_link": """
        additional_image_links additional_images additional_image_urls additional_image_url additional_image
        other_images other_image_url other_image extra_images gallery gallery_images image_gallery
        imgurl_alternative alternate_images weitere_bilder zusatzbilder zusätzlicher_bildlink
        lien_image_supplémentaire lien_d'image_supplémentaire enlace_imagen_adicional link_immagine_aggiuntiva
        aanvullende_afbeeldingslink 追加画像リンク 其他图片链接
        """,
    "product_highlight": """
        product_highlights highlights highlight bullet_points bullet_point key_features features feature_bullets
        bullets selling_points key_selling_points usps usp produkthighlight
        """,
    "price": """
        variant_price regular_price standard_price list_price current_price price_vat price_amount preis
        verkaufspreis prix precio prezzo prijs preço preco cena 価格 販売価格 价格 가격 цена fiyat pris hinta ár
        offers.price
        """,
    "availability": """
        stock_status in_stock is_in_stock available verfügbarkeit disponibilité disponibilidad disponibilità
        beschikbaarheid disponibilidade dostępność dostupnost tillgänglighet tilgængelighed 在庫状況 库存状况
        재고_상태 наличие offers.availability
        """,
    "brand": """
        vendor brand_name manufacturer marke hersteller marque marca merk značka marka märke mærke ブランド 品牌
        브랜드 бренд 販売元 anbieter fournisseur
        """,
    "link": """
        url product_url product_link permalink page_url landing_page online_store_url produktlink lien enlace
        produkt_url リンク 链接 링크 ссылка
        """,
    "product_type": """
        product_category category categories kategorie catégorie categoría categoria kategoria kategori
        categorytext collection カテゴリ 类别
        """,
    "google_product_category": "google_category google_taxonomy",
    "item_group_id": """
        group_id item_group itemgroup_id product_group_id variant_group_id parent_sku parent_id parent
        master_sku artikelgruppen_id
        """,
    "published": """
        veröffentlicht publié publiée publicado pubblicato gepubliceerd opublikowano opublikowany publikováno
        publicerad julkaistu udgivet publisert közzétéve опубликовано опубликован 公開 公開済み 已发布 게시됨 yayınlandı
        """,
    "visible": "sichtbar visibile visível zichtbaar widoczny viditelné synlig видимый 表示 可见",
    "active": "aktiv actif activo attivo ativo actief aktywny aktivní активен 有効 启用 aktif",
    "status": "statut estado stato état статус ステータス 状態 状态 상태 durum tila stav",
}
_SHOPIFY = {
    "handle": "id",
    "url_handle": "id",
    "ハンドル": "id",
    "identifiant_url": "id",
    "type": "product_type",
    "product_category": "google_product_category",
    "image_src": "image_link",
    "bild_src": "image_link",
    "product_image_url": "image_link",
    "variant_price": "price",
    "published_on_online_store": "published",
    "option1_value": "variant",
}


def _table() -> dict[str, tuple[str, float]]:
    table: dict[str, tuple[str, float]] = {}
    for role, names in _NAMES.items():
        for number, name in enumerate(names.split()):
            table.setdefault(name, (role, 2 + number / 1000))
    return table


_ALIASES = _table()
_OWN: Mapping[str, Mapping[str, tuple[str, float]]] = {
    "shopify": {name: (role, 2 + number / 1000) for number, (name, role) in enumerate(_SHOPIFY.items())},
    # In Google's own APIs `id` and `name` hold the channel and the account too; the shop's id is `offerId`.
    "merchant": {"offer_id": ("id", 0.5), "name": ("resource_name", 2.0)},
    "schema_org": {"product_id": ("id", 2.5), "@id": ("id", 2.9)},
    "wix": {"handle_id": ("id", 1.5), "sku": ("sku", 1.0)},
    "yandex": {"model": ("model", 1.0), "vendor": ("brand", 2.0)},
}
_PICTURES = frozenset({"image_link", "additional_image_link"})
_WEAK = 4.0  # how sure a name in an unknown namespace is
_MOST_HEADERS = 4096


@lru_cache(maxsize=8192)
def plain_name(name: str) -> str:
    """Return a column's own name as a mapping may write it: lower case, with underscores between its words.

    Examples:
        >>> plain_name("Image Link"), plain_name("imageURL"), plain_name(" #Body (HTML) *")
        ('image_link', 'image_url', 'body_(html)')
    """
    text = unicodedata.normalize("NFKC", name).strip(" \t\r\n\"'\ufeff\u200b#*?").strip()
    if not text.isupper() and not text.islower() and " " not in text:
        text = _WORDS.sub("_", text)
    return _SEPARATORS.sub("_", text.lower()).strip("_") if not text.startswith("_") else text.lower()


@lru_cache(maxsize=8192)
def canonical(name: str, *, kind: Kind = "google", prefixes: tuple[str, ...] = ("g:",)) -> tuple[str, float]:
    """Return the canonical name of a column, and how sure it is (0 is surest).

    A prefixed name beats a plain one, because RSS and Atom have a `title` and a `link` of their own, and a name of
    Google's own beats an alias.

    Examples:
        >>> canonical("g:Image Link"), canonical("title"), canonical("product name")
        (('image_link', 0), ('title', 1), ('title', 2.001))
    """
    rank: float = 1
    own = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
    if own is not None:
        name, rank = name.removeprefix(own), 0
    elif found := _PREFIX.match(name):
        local, sure = canonical(name[found.end() :], kind=kind, prefixes=prefixes)
        joined = plain_name(name)
        alias = _ALIASES.get(joined)
        return alias if alias is not None else (local, sure + _WEAK)
    for prefix in prefixes:
        name = name.replace(f".{prefix}", ".")
    if "." in name and (nested := _nested(name, kind)) is not None:
        return nested
    plain = plain_name(name)
    if (alias := _alias(plain, kind)) is not None:
        return alias
    if (bare := _HINT.sub("", plain)) != plain and bare and bare != "body":
        if (alias := _alias(bare, kind)) is not None:
            return alias
        if bare in _NAMES or bare in _STATED:
            return bare, 2
    if found := _NUMBERED.fullmatch(bare):
        alias = _alias(found[1], kind) or ((found[1], 1) if found[1] in _NAMES else None)
        if alias is not None and alias[0] in _PICTURES:
            first = int(found[2]) < 2 and alias[0] == "image_link"
            return ("image_link" if first else "additional_image_link", 2.5 + int(found[2]) / 100)
        if alias is not None and alias[0] == "product_highlight":
            return "product_highlight", 2.5 + int(found[2]) / 100
    return plain, rank


def _alias(plain: str, kind: Kind) -> tuple[str, float] | None:
    own = _OWN.get(kind)
    if own is not None and (found := own.get(plain)) is not None:
        return found
    return _ALIASES.get(plain)


_LEAVES = frozenset(
    "image img picture photo url uri src href link item original large main value #text image_url name".split()  # noqa: SIM905
)
_WRAPPERS = frozenset({"product_attributes", "attributes", "node", "product", "item_attributes"})


def _nested(name: str, kind: Kind) -> tuple[str, float] | None:
    """Return the meaning of a name below another: a list of pictures, or the object that holds all attributes."""
    if found := _PATH.fullmatch(name):
        base = canonical(found[1], kind=kind)
        if base[0] in _PICTURES:
            first = found[2] == "0" and base[0] == "image_link"
            return ("image_link" if first else "additional_image_link", 2 + int(found[2]) / 1000)
        return None
    outer, _, inner = name.partition(".")
    plain = plain_name(outer)
    if plain in _WRAPPERS:
        return canonical(inner, kind=kind)
    joined = f"{plain}.{plain_name(inner)}"
    if joined in _ALIASES:
        return _ALIASES[joined]
    role = canonical(outer, kind=kind)
    leaf = plain_name(inner.rpartition(".")[2].rpartition(":")[2])
    if role[0] in _PICTURES and leaf in _LEAVES:
        return role[0], role[1] + 0.4
    if role[0] == "product_highlight":
        return role[0], role[1] + 0.4
    return None


_STATED = frozenset(
    {"active", "published", "visible", "visibility", "status", "enabled", "available_for_order", "product_visible"}
)
_SHOP_FORMS: tuple[tuple[Kind, Collection[str]], ...] = (
    ("openai", {"is_eligible_search", "is_eligible_checkout", "enable_search", "enable_checkout"}),
    ("woocommerce", {"visibility_in_catalog", "catalog_visibility", "is_featured"}),
    ("magento", {"store_view_code", "attribute_set_code", "product_websites", "base_image", "product_online"}),
    ("wix", {"handle_id"}),
    ("prestashop", {"image_urls_(x,y,z...)", "active_(0_1)", "categories_(x,y,z...)"}),
    ("bigcommerce", {"product_visible", "product_code_sku", "internal_image_url_(export)"}),
    ("amazon", {"item_sku", "main_image_url", "feed_product_type", "external_product_id"}),
    ("schema_org", {"@type", "@context"}),
    ("tiktok", {"sku_id"}),
)


def kind_of(header: Collection[str], *, commented: bool = False) -> Kind:
    """Return the shop or marketplace whose rules a feed follows, by its columns.

    Args:
        header: Column names as the feed has them.
        commented: Whether `#` lines came before the header.

    Examples:
        >>> kind_of(["Handle", "Title", "Body (HTML)"]), kind_of(["id", "title", "is_eligible_search"])
        ('shopify', 'openai')
    """
    names = {plain_name(name.rpartition(":")[2] if "." not in name else name) for name in header}
    roles = {canonical(name)[0] for name in header}
    if names & {"handle", "url_handle", "ハンドル"} and "title" in roles and ("id" not in names or "top_row" in names):
        return "shopify"
    if names & {"__parent_id", "body_html", "published_scope", "admin_graphql_api_id"} or any(
        name in names for name in ("body_(html)", "variant_inventory_qty")
    ):
        return "shopify"
    if names & {"offer_id"} and names & {
        "content_language",
        "feed_label",
        "product_attributes",
        "channel",
        "target_country",
    }:
        return "merchant"
    if (
        {"type_prefix", "model"} <= names
        or {"vendor", "model", "picture"} <= names
        or {"picture", "currency_id"} <= names
    ):
        return "yandex"
    for kind, marks in _SHOP_FORMS:
        if names & set(marks):
            return kind
    if commented or names & {"fb_product_category", "quantity_to_sell_on_facebook", "image[0].url", "fb_gender"}:
        return "meta"
    return "google"


class Columns:
    """Canonical names for whole headers, computed once for each header that occurs.

    Args:
        kind: Whose rules the feed follows.
        prefixes: Namespace prefixes of Google's attributes.
        named: Own names of columns that the user's mapping uses; a column that has one is found under it too.

    Examples:
        >>> Columns().names(("g:id", "title", "g:title"))
        ('id', 'title[2]', 'title')
    """

    def __init__(
        self, *, kind: Kind = "google", prefixes: tuple[str, ...] = ("g:",), named: Iterable[str] = ()
    ) -> None:
        self._kind: Kind = kind
        self._prefixes = prefixes
        self._named = frozenset(named)
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._copies: dict[tuple[str, ...], tuple[tuple[str, int], ...]] = {}

    def names(self, header: tuple[str, ...]) -> tuple[str, ...]:
        """Return the canonical names of a header, in its order; of two with one meaning the surer one gets it."""
        known = self._known.get(header)
        if known is None:
            if len(self._known) >= _MOST_HEADERS:  # a feed whose every row has other columns must not fill the memory
                self._known.clear()
                self._copies.clear()
            known = self._known[header] = self._canonical(header)
        return known

    def copies(self, header: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """Return which columns are needed under their own names too: the name and the position of each."""
        if not self._named:
            return ()
        found = self._copies.get(header)
        if found is None:
            taken = set(self.names(header))
            wanted: dict[str, int] = {}
            for position, name in enumerate(header):
                for own in _own_names(name, self._prefixes):
                    if own in self._named and own not in taken:
                        wanted.setdefault(own, position)
            found = self._copies[header] = tuple(wanted.items())
        return found

    def _canonical(self, header: tuple[str, ...]) -> tuple[str, ...]:
        meant = [canonical(name, kind=self._kind, prefixes=self._prefixes) for name in header]
        # A column that the mapping calls by a canonical name is meant by it, and no alias.
        names = [""] * len(header)
        taken: set[str] = set()
        for position in sorted(range(len(header)), key=lambda position: meant[position][1]):
            name = base = meant[position][0]
            count = 1
            while name in taken:
                count += 1
                name = f"{base}[{count}]"
            taken.add(name)
            names[position] = name
        return tuple(names)


def _own_names(name: str, prefixes: tuple[str, ...]) -> Iterable[str]:
    own = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
    plain = plain_name(name.removeprefix(own))
    yield plain
    if (bare := _HINT.sub("", plain)) != plain:
        yield bare


def attributes_of(
    names: tuple[str, ...], values: Iterable[object], copies: tuple[tuple[str, int], ...]
) -> dict[str, object]:
    """Return a row's attributes: each value under its canonical name, and under its own where the mapping uses that."""
    values = list(values)
    attributes = dict(zip(names, values, strict=False))
    for name, position in copies:
        if position < len(values):
            attributes[name] = values[position]
    return attributes
