// Find and make elements.

export const find = (id) => document.getElementById(id);

export function make(kind, name, content = "") {
  const element = document.createElement(kind);
  if (name) element.className = name;
  element.textContent = content;
  return element;
}
