"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);

/* Every text of the data goes through here, as text. */
function el(tag, text, className, ...children) {
  const node = document.createElement(tag);
  if (text !== null && text !== undefined && text !== "") node.textContent = text;
  if (className) node.className = className;
  node.append(...children);
  return node;
}
const num = (x, digits = 2) => x === null ? "n/a" : x.toFixed(digits);
const signed = (x, digits = 2) => x === null ? "n/a" : (x > 0 ? "+" : "") + x.toFixed(digits);
