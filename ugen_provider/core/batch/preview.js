(() => {
  "use strict";
  const form = document.getElementById("filters"), state = document.getElementById("state");
  const cards = [...document.querySelectorAll("#cards > li")], save = document.getElementById("save");
  const boxes = cards.map((card) => card.querySelector(".pick"));
  const words = cards.map((card) => {
    const place = card.querySelector(".place").textContent;  // a number that is searched for is no line of the feed
    return card.textContent.replace(place, " ").toLowerCase().replace(/\s+/g, " ");
  });
  const number = new Intl.NumberFormat("en");
  const many = (count, one) => `${number.format(count)} ${one}${count === 1 ? "" : "s"}`;
  const limit = (name) => (state.dataset[name] === undefined ? Infinity : +state.dataset[name]);
  const selected = () => boxes.filter((box) => box && box.checked);

  const count = () => {
    const bought = new Map();
    const ticked = selected();
    for (const box of ticked) {
      for (const video of box.dataset.videos.split(" ").filter(Boolean)) {
        const [name, cost] = video.split(":");
        if (!bought.has(name)) bought.set(name, cost === "" ? NaN : +cost);
      }
    }
    const total = [...bought.values()].reduce((sum, cost) => sum + cost, 0);
    const all = boxes.filter(Boolean).length;
    const said = [`${number.format(ticked.length)} of ${many(all, "product")} ticked`, many(bought.size, "video")];
    said.push(Number.isNaN(total) ? "cost not known" : many(total, "credit"));
    const least = Math.min(limit("budget"), limit("balance"));
    const over = total > least;
    if (over) {
      const name = limit("budget") <= limit("balance") ? "budget" : "balance";
      said.push(`${number.format(total - least)} more than the ${name}; the last products wait`);
    }
    state.classList.toggle("over", over);
    state.textContent = said.join(" · ");
    save.disabled = ticked.length === 0;
    document.getElementById("next").hidden = true;
  };

  const show = () => {
    const asked = form.words.value.toLowerCase().split(/\s+/).filter(Boolean), view = form.view.value;
    let shown = 0;
    cards.forEach((card, index) => {
      const inView = !view || ` ${card.dataset.views} `.includes(` ${view} `)
        || (view === "ticked" && boxes[index]?.checked) || (view === "unticked" && boxes[index] && !boxes[index].checked);
      card.hidden = !(inView && asked.every((word) => words[index].includes(word)));
      shown += !card.hidden;
    });
    document.getElementById("none").hidden = shown > 0;
  };

  const tick = (checked) => {
    boxes.forEach((box, index) => { if (box && !cards[index].hidden) box.checked = checked; });
    count();
  };

  const download = () => {
    const products = selected().map((box) => box.value);
    if (!products.length) return;
    const text = JSON.stringify({ catalogue: state.dataset.catalogue, feed: state.dataset.feed, products }, null, 1) + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "selection.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    document.getElementById("next").hidden = false;
  };

  const move = (event) => {
    const shown = boxes.filter((box, index) => box && !cards[index].hidden);
    const at = shown.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const box = shown[Math.max(0, Math.min(to, shown.length - 1))];
    box.focus({ preventScroll: true });
    box.closest("li").scrollIntoView({ block: "center" });
  };

  for (const button of document.querySelectorAll("button[data-view]")) {
    button.addEventListener("click", () => { form.view.value = button.dataset.view; show(); form.view.focus(); });
  }
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("cards").addEventListener("change", count);
  document.getElementById("all").addEventListener("click", () => tick(true));
  document.getElementById("clear").addEventListener("click", () => tick(false));
  save.addEventListener("click", download);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const writes = event.target.matches("input[type=search], select");
    if (event.target.matches(".pick")) move(event);
    if (event.key === "/" && !writes) { event.preventDefault(); form.words.focus(); }
    if (event.key === "s" && !writes) download();
    if (event.key === "Escape" && writes) boxes.find((box, index) => box && !cards[index].hidden)?.focus();
  });
  document.addEventListener("error", (event) => {
    if (event.target.tagName !== "IMG") return;
    const said = document.createElement("span");
    said.textContent = "The browser could not load the picture";
    event.target.replaceWith(said);
  }, true);
  window.addEventListener("pageshow", () => { show(); count(); });
  show();
  count();
})();
