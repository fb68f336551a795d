// A terminal in the page, without inline style: what it would write as style goes where the policy lets it.
import '@xterm/xterm/css/xterm.css';

import { FitAddon } from '@xterm/addon-fit';
import { Terminal } from '@xterm/xterm';

/** In the place of a `<style>`: the same text as a sheet of the document, which the policy takes. */
class Sheet extends HTMLElement {
  #sheet = new CSSStyleSheet();

  connectedCallback() {
    this.hidden = true;
    document.adoptedStyleSheets.push(this.#sheet);
  }

  disconnectedCallback() {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== this.#sheet);
  }

  override set textContent(css: string) {
    this.#sheet.replaceSync(css);
  }

  override get textContent(): string {
    return '';
  }
}
customElements.define('loom-sheet', Sheet);

// The terminal takes the global document for much of what it makes, so that the two ways to a style that the
// policy refuses are led to the same by the object model, which it does not touch.
const plain = document.createElement.bind(document);
document.createElement = (name: string, options?: ElementCreationOptions) => plain(name === 'style' ? 'loom-sheet' : name, options);
HTMLSpanElement.prototype.setAttribute = function (name: string, value: string) {
  if (name === 'style') this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
};

export function terminalIn(place: HTMLElement): { terminal: Terminal; fit: FitAddon } {
  const { color, backgroundColor, fontFamily } = getComputedStyle(place);
  const terminal = new Terminal({
    fontFamily,
    fontSize: 13,
    scrollback: 5000,
    theme: { background: backgroundColor, foreground: color, cursor: color, selectionBackground: '#5b87b388' },
    minimumContrastRatio: 4.5,
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(place);
  fit.fit();
  return { terminal, fit };
}
