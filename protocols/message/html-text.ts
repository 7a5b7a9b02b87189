/**
 * HTML to plain text for previews and search: tags, comments, scripts and styles go, blocks become lines, entities become characters. Not
 * a renderer and not a sanitizer. One pass; every search runs forward once.
 */

/** Elements whose content is no text. */
const silentElements = new Set(['head', 'noscript', 'template', 'svg', 'math', 'object', 'select']);

/** Elements whose content, up to their end tag, is not markup either. */
const rawTextEnd: Record<string, RegExp> = { script: /<\/script/gi, style: /<\/style/gi, title: /<\/title/gi };

/** Elements that stand on lines of their own. */
const blockElements = new Set(
  'address article aside blockquote body br center dd div dl dt fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr html li main nav ol p pre section table tbody td th tfoot thead tr ul'.split(
    ' ',
  ),
);

const entities: Record<string, string> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
  nbsp: ' ',
  ensp: ' ',
  emsp: ' ',
  thinsp: ' ',
  zwnj: '',
  zwj: '',
  shy: '',
  lrm: '',
  rlm: '',
  copy: '©',
  reg: '®',
  trade: '™',
  hellip: '…',
  mdash: '—',
  ndash: '–',
  lsquo: '‘',
  rsquo: '’',
  sbquo: '‚',
  ldquo: '“',
  rdquo: '”',
  bdquo: '„',
  laquo: '«',
  raquo: '»',
  lsaquo: '‹',
  rsaquo: '›',
  bull: '•',
  middot: '·',
  euro: '€',
  pound: '£',
  yen: '¥',
  cent: '¢',
  sect: '§',
  para: '¶',
  deg: '°',
  plusmn: '±',
  times: '×',
  divide: '÷',
  frac12: '½',
  frac14: '¼',
  frac34: '¾',
  sup2: '²',
  sup3: '³',
  micro: 'µ',
  iexcl: '¡',
  iquest: '¿',
  agrave: 'à',
  aacute: 'á',
  acirc: 'â',
  atilde: 'ã',
  auml: 'ä',
  aring: 'å',
  aelig: 'æ',
  ccedil: 'ç',
  egrave: 'è',
  eacute: 'é',
  ecirc: 'ê',
  euml: 'ë',
  igrave: 'ì',
  iacute: 'í',
  icirc: 'î',
  iuml: 'ï',
  ntilde: 'ñ',
  ograve: 'ò',
  oacute: 'ó',
  ocirc: 'ô',
  otilde: 'õ',
  ouml: 'ö',
  oslash: 'ø',
  ugrave: 'ù',
  uacute: 'ú',
  ucirc: 'û',
  uuml: 'ü',
  yacute: 'ý',
  yuml: 'ÿ',
  szlig: 'ß',
  eth: 'ð',
  thorn: 'þ',
  Agrave: 'À',
  Aacute: 'Á',
  Acirc: 'Â',
  Atilde: 'Ã',
  Auml: 'Ä',
  Aring: 'Å',
  AElig: 'Æ',
  Ccedil: 'Ç',
  Egrave: 'È',
  Eacute: 'É',
  Ecirc: 'Ê',
  Euml: 'Ë',
  Igrave: 'Ì',
  Iacute: 'Í',
  Icirc: 'Î',
  Iuml: 'Ï',
  Ntilde: 'Ñ',
  Ograve: 'Ò',
  Oacute: 'Ó',
  Ocirc: 'Ô',
  Otilde: 'Õ',
  Ouml: 'Ö',
  Oslash: 'Ø',
  Ugrave: 'Ù',
  Uacute: 'Ú',
  Ucirc: 'Û',
  Uuml: 'Ü',
  Yacute: 'Ý',
  ETH: 'Ð',
  THORN: 'Þ',
  larr: '←',
  uarr: '↑',
  rarr: '→',
  darr: '↓',
};

/** Text of `html`, lines parted by `\n`, at most about `maxChars` characters of output; stops reading once it has them. */
export function htmlToText(html: string, maxChars: number): string {
  const pieces: string[] = [];
  let length = 0;
  let at = 0;
  let silent = '';
  const take = (raw: string) => {
    if (raw === '' || silent !== '') return;
    const text = decodeEntities(raw).replace(/\s+/g, ' ');
    pieces.push(text);
    length += text.length;
  };
  while (at < html.length && length < maxChars) {
    const open = html.indexOf('<', at);
    if (open < 0) {
      take(html.slice(at, at + maxChars * 8));
      break;
    }
    take(html.slice(at, Math.min(open, at + maxChars * 8)));
    const tag = readTag(html, open);
    if (tag === undefined) break;
    at = tag.end;
    if (!tag.closing && Object.hasOwn(rawTextEnd, tag.name)) {
      // HTML 13.2.5: inside these, nothing but their own end is markup.
      const end = rawTextEnd[tag.name]!;
      end.lastIndex = at;
      const close = end.exec(html);
      if (!close) break;
      at = close.index;
    } else if (silent !== '') {
      // The head also ends where the body begins: closing it is optional in HTML.
      if ((tag.closing && tag.name === silent) || (silent === 'head' && tag.name === 'body')) silent = '';
    } else if (!tag.closing && silentElements.has(tag.name)) {
      silent = tag.name;
    } else if (blockElements.has(tag.name)) {
      pieces.push('\n');
    } else if (tag.name === '') {
      take(html.slice(open, tag.end));
    }
  }
  const text = pieces
    .join('')
    // Spaces become one each first: a pattern that begins with any number of them would take time by the square of a long row.
    .replace(/ {2,}/g, ' ')
    .replace(/ ?\n[ \n]*/g, '\n')
    .trim();
  return text.length > maxChars ? text.slice(0, maxChars) : text;
}

interface Tag {
  /** Lower case; `''` for a `<` that opens no tag and is text; `!` for comments and declarations. */
  name: string;
  closing: boolean;
  end: number;
}

/** The tag at `open`; undefined when it never ends, and so nothing behind it is text. */
function readTag(html: string, open: number): Tag | undefined {
  if (html.startsWith('<!--', open)) {
    const end = html.indexOf('-->', open + 2);
    return end < 0 ? undefined : { name: '!', closing: false, end: end + 3 };
  }
  tagName.lastIndex = open;
  const match = tagName.exec(html);
  if (!match) return { name: '', closing: false, end: open + 1 };
  const end = tagEnd(html, tagName.lastIndex);
  if (end < 0) return undefined;
  return { name: match[2]!.toLowerCase(), closing: match[1] === '/', end };
}

const tagName = /<(\/?)([A-Za-z][A-Za-z0-9]{0,31}|[!?])/y;

/** Index behind the tag's `>`, which does not count inside quotes; -1 when there is none. */
function tagEnd(html: string, from: number): number {
  const plain = html.indexOf('>', from);
  if (plain < 0) return -1;
  let at = from;
  while (at < html.length) {
    const c = html.charCodeAt(at);
    if (c === 0x3e) return at + 1;
    if ((c === 0x22 || c === 0x27) && html.charCodeAt(at - 1) === 0x3d) {
      const close = html.indexOf(c === 0x22 ? '"' : "'", at + 1);
      // A quote that never closes is a typing error; the first '>' ends the tag.
      if (close < 0) return plain + 1;
      at = close;
    }
    at++;
  }
  return -1;
}

function decodeEntities(text: string): string {
  if (!text.includes('&')) return text;
  return text.replace(/&(?:#(\d{1,7})|#[xX]([0-9A-Fa-f]{1,6})|([A-Za-z][A-Za-z0-9]{1,7}));?/g, (all, decimal, hex, name) => {
    if (name !== undefined) return entities[name as string] ?? all;
    const code = decimal !== undefined ? Number(decimal) : Number.parseInt(hex, 16);
    return code === 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? '\ufffd' : String.fromCodePoint(code);
  });
}
