// Markdown as elements: made by marked, cleaned by DOMPurify, which is the only way from text to HTML here.
import DOMPurify from 'dompurify';
import { Marked } from 'marked';

const escape = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
// What is HTML in a conversation was written about, not for this page: it is shown as it stands there.
const marked = new Marked({ gfm: true, renderer: { html: ({ text }) => escape(text) } });

function html(source: string): string {
  const tokens = marked.lexer(source);
  const headings = tokens.filter((token) => token.type === 'heading') as { depth: number }[];
  // The page has the first heading; those of a text begin with the second.
  const first = Math.min(...headings.map((heading) => heading.depth));
  for (const heading of headings) heading.depth = Math.min(6, heading.depth - first + 2);
  return marked.parser(tokens);
}

// It is given nothing but what DOMPurify cleans next, and nobody else has it.
const trusted = window as { trustedTypes?: { createPolicy(name: string, rules: object): never } };
const same = (text: string) => text;
const policy = trusted.trustedTypes?.createPolicy('loom', { createHTML: same, createScriptURL: same });
const WITH = policy ? { TRUSTED_TYPES_POLICY: policy } : {};

DOMPurify.addHook('uponSanitizeAttribute', (_, attribute) => {
  if (attribute.attrName === 'class' && !/^(language-[\w+#.-]+|hljs-[\w-]+( [\w-]+_*)*)$/.test(attribute.attrValue)) attribute.keepAttr = false;
});
DOMPurify.addHook('afterSanitizeAttributes', (element) => {
  if (element.tagName === 'A' && element.hasAttribute('href')) {
    element.setAttribute('rel', 'noopener noreferrer');
    element.setAttribute('target', '_blank');
  } else if (element.tagName === 'INPUT') {
    // Only the boxes of a list of tasks.
    if (element.getAttribute('type') !== 'checkbox') return element.remove();
    element.setAttribute('disabled', '');
    element.setAttribute('aria-label', element.hasAttribute('checked') ? 'done' : 'to be done');
  }
});

const TAGS = [
  'a', 'blockquote', 'br', 'code', 'del', 'em', 'h2', 'h3', 'h4', 'h5', 'h6', 'hr', 'img', 'input',
  'li', 'ol', 'p', 'pre', 'strong', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
];
const ATTRIBUTES = ['href', 'src', 'alt', 'title', 'class', 'start', 'type', 'checked', 'align'];

/** What was written, without anything that acts, and with nothing from elsewhere: an image there becomes a link. */
export function markdown(source: string): DocumentFragment {
  const fragment = DOMPurify.sanitize(html(source), {
    ...WITH,
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ADD_URI_SAFE_ATTR: ['type', 'start', 'align'],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(https?:|mailto:|data:image\/(png|jpeg|gif|webp);)/i,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const image of fragment.querySelectorAll('img')) {
    const address = image.getAttribute('src') ?? '';
    if (address.startsWith('data:image/')) continue;
    const link = document.createElement('a');
    link.textContent = image.alt || address || 'image';
    if (address) {
      link.href = address;
      link.rel = 'noopener noreferrer';
      link.target = '_blank';
    }
    image.replaceWith(link);
  }
  // What scrolls must be reached by keyboard.
  for (const wide of fragment.querySelectorAll<HTMLElement>('pre, table')) wide.tabIndex = 0;
  return fragment;
}

/** One line that the server made, in which what was found is marked. */
export function marks(html: string): DocumentFragment {
  return DOMPurify.sanitize(html, { ...WITH, ALLOWED_TAGS: ['mark'], ALLOWED_ATTR: [], RETURN_DOM_FRAGMENT: true });
}

/** Longer code stays as it is: colours would keep the page from moving. */
const LONGEST = 50_000;

/** Colours the code in there, as far as its language is known. */
export async function colour(within: HTMLElement) {
  const blocks = [...within.querySelectorAll<HTMLElement>('code[class^="language-"]')];
  if (blocks.length === 0) return;
  const { highlighter } = await import('./highlight');
  for (const block of blocks) {
    const language = block.className.slice('language-'.length).toLowerCase();
    const code = block.textContent ?? '';
    if (code.length > LONGEST || !highlighter.getLanguage(language)) continue;
    const { value } = highlighter.highlight(code, { language, ignoreIllegals: true });
    const coloured = DOMPurify.sanitize(value, { ...WITH, ALLOWED_TAGS: ['span'], ALLOWED_ATTR: ['class'], RETURN_DOM_FRAGMENT: true });
    block.replaceChildren(coloured);
  }
}
