// The slides beside the transcript, and the keywords of them that were said.

const KEY = (text) => text.toLocaleLowerCase().normalize("NFKC");

export class Slides {
  constructor(deck, said, likely) {
    this.deck = deck;
    this.said = said;
    this.likely = likely;
    this.clear();
  }

  clear() {
    for (const url of this.pictures?.values() ?? []) URL.revokeObjectURL(url);
    this.pictures = new Map();
    this.places = new Map();
    this.show([], [], () => false);
  }

  // Pictures of slides that the reader has chosen are shown themselves.
  remember(files) {
    for (const file of files) if (file.type.startsWith("image/")) this.pictures.set(file.name, URL.createObjectURL(file));
  }

  // keywords: [{keyword, slides}] that were looked for in the end; written(keyword): whether it is in the transcript.
  show(keywords, slides, written) {
    this.places = new Map(keywords.map((one) => [KEY(one.keyword), one.slides]));
    const inText = keywords.filter((one) => written(one.keyword));
    const others = keywords.filter((one) => !written(one.keyword));
    this.said.replaceChildren(...inText.map((one) => this.item(one.keyword)));
    this.likely.replaceChildren(...others.map((one) => this.item(one.keyword)));
    document.getElementById("likely-title").hidden = !others.length;
    document.getElementById("slides-title").hidden = !slides.length;
    this.deck.replaceChildren(...slides.map((slide) => this.card(slide, keywords)));
  }

  item(keyword) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = keyword;
    button.dir = "auto";
    button.addEventListener("click", () => this.reveal(keyword));
    item.append(button);
    return item;
  }

  card(slide, keywords) {
    const card = document.createElement("article");
    card.className = "slide";
    card.dataset.place = `${slide.deck}:${slide.slide}`;
    card.tabIndex = -1;
    const title = document.createElement("h3");
    title.textContent = `${slide.deck}, slide ${slide.slide}`;
    const text = document.createElement("pre");
    text.dir = "auto";
    marked(text, slide.text, keywords.map((one) => one.keyword));
    card.append(title, text);
    const picture = this.pictures.get(slide.deck);
    if (picture) {
      const image = document.createElement("img");
      image.src = picture;
      image.alt = `Picture of ${slide.deck}`;
      text.before(image);
    }
    return card;
  }

  // Bring the slide of a keyword into view; false where it stands on none.
  reveal(keyword) {
    const [place] = this.places.get(KEY(keyword)) ?? [];
    for (const shown of this.deck.querySelectorAll(".shown")) shown.classList.remove("shown");
    if (!place) return false;
    const card = [...this.deck.children].find((one) => one.dataset.place === `${place.deck}:${place.slide}`);
    card?.classList.add("shown");
    card?.scrollIntoView({ block: "nearest" });
    return Boolean(card);
  }
}

function marked(element, text, keywords) {
  const forms = keywords.filter(Boolean).map((keyword) => keyword.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (!forms.length) { element.textContent = text; return; }
  const parts = text.split(new RegExp(`(?<![\\p{L}\\p{N}])(${forms.join("|")})(?![\\p{L}\\p{N}])`, "giu"));
  element.replaceChildren(...parts.map((part, index) => {
    if (index % 2 === 0) return part;
    const mark = document.createElement("mark");
    mark.textContent = part;
    return mark;
  }));
}
