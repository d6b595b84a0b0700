// The drawings saved with their labels. The browser keeps them across reloads.

import { packZip } from "./zip.js";

const KEY = "vggnet-drawings";

export class Collection {
  #drawings = load();
  #changed;

  // `changed` is called after each change, in this tab or in another one.
  constructor(changed) {
    this.#changed = changed;
    addEventListener("storage", ({ key }) => {
      if (key !== KEY && key !== null) return;
      this.#drawings = load();
      changed();
    });
  }

  get drawings() {
    return this.#drawings;
  }

  // Save a PNG file, in base64, under a label.
  add(label, png) {
    this.#set([...this.#drawings, { label, png }]);
  }

  removeLast() {
    this.#set(this.#drawings.slice(0, -1));
  }

  removeAll() {
    this.#set([]);
  }

  // One folder for each label: drawings/<label>/0001.png.
  toZip() {
    const counts = new Map();
    const files = this.#drawings.map(({ label, png }) => {
      const number = (counts.get(label) ?? 0) + 1;
      counts.set(label, number);
      const folder = label.replace(/[\\/:*?"<>|]/g, "-");
      return {
        name: `drawings/${folder}/${String(number).padStart(4, "0")}.png`,
        bytes: Uint8Array.from(atob(png), (character) => character.charCodeAt(0)),
      };
    });
    return packZip(files);
  }

  #set(drawings) {
    this.#drawings = drawings;
    try {
      localStorage.setItem(KEY, JSON.stringify(drawings));
    } catch {
      // Storage is full or forbidden: the drawings last as long as the page.
    }
    this.#changed();
  }
}

function load() {
  try {
    const drawings = JSON.parse(localStorage.getItem(KEY)) ?? [];
    return drawings.filter(({ label, png }) => typeof label === "string" && atob(png));
  } catch {
    return [];
  }
}
