/** What a mailing list does to a message's header (RFC 2369, 2919, 8058): its own List-* fields take the place of others'. Pure. */
import { encodeWords } from '../../protocols/message/index.js';
import { headerSafe, isAscii } from './addresses.js';
import type { ListSettings } from './outcome-settings.js';

/** Fields of which a message that a list sends on has the list's, or none. */
const replaced =
  /^(?:list-(?:id|post|help|owner|archive|subscribe|unsubscribe|unsubscribe-post)|sender|precedence|return-path)[ \t]*:/i;

const maxFieldText = 900;

/** `list@domain` as `<list.domain>` (RFC 2919 2). */
export function listId(address: string): string {
  return `<${headerSafe(address).replace('@', '.')}>`;
}

/** The address in a mailto URI (RFC 6068 2). */
function mailto(address: string, query = ''): string {
  const at = address.lastIndexOf('@');
  return `<mailto:${encodeURIComponent(address.slice(0, at))}@${encodeURI(address.slice(at + 1))}${query}>`;
}

/** A URI between angle brackets; undefined for what could break out of them. */
function uri(text: string | undefined): string | undefined {
  return text !== undefined && /^[!-;=?-~]{1,900}$/.test(text) ? `<${text}>` : undefined;
}

function phrase(name: string): string {
  const safe = headerSafe(name).slice(0, 200);
  if (safe === '') return '';
  if (isAscii(safe)) return `"${safe.replace(/["\\]/g, '\\$&')}" `;
  return `${encodeWords(safe).join('\r\n ')}\r\n `;
}

/** The list's fields, each with its line end. */
export function listFields(address: string, list: ListSettings): string {
  const { owner, unsubscribe } = list;
  const unsubscribeMailto = unsubscribe?.mailto ?? owner;
  const url = uri(unsubscribe?.url);
  const subject = `?subject=${encodeURIComponent(`unsubscribe ${address}`)}`;
  const ways = [url, unsubscribeMailto === undefined ? undefined : mailto(unsubscribeMailto, subject)];
  const fields: [string, string | undefined][] = [
    ['List-Id', `${phrase(list.name ?? '')}${listId(address)}`],
    ['List-Post', list.posting === 'owners' ? 'NO (only its owners write to this list)' : mailto(headerSafe(address))],
    ['List-Help', uri(list.help)],
    ['List-Archive', uri(list.archive)],
    ['List-Subscribe', uri(list.subscribe)],
    ['List-Owner', owner === undefined ? undefined : mailto(owner)],
    ['List-Unsubscribe', ways.filter((way) => way !== undefined).join(',\r\n ') || undefined],
    // RFC 8058 3.1: only beside an https URI.
    ['List-Unsubscribe-Post', unsubscribe?.isOneClick && url?.startsWith('<https:') ? 'List-Unsubscribe=One-Click' : undefined],
    ['Sender', `<${headerSafe(address)}>`],
    ['Precedence', 'list'],
    ['X-Loop', headerSafe(address)],
  ];
  return fields
    .filter((field): field is [string, string] => field[1] !== undefined && field[1].length <= maxFieldText * 3)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('');
}

/** Length of a header with its empty line; -1 when it does not end within `bytes`. */
export function headerLength(bytes: Buffer): number {
  if (bytes[0] === 0x0d && bytes[1] === 0x0a) return 2;
  const at = bytes.indexOf('\r\n\r\n');
  return at < 0 ? -1 : at + 4;
}

/** A header (its empty line included) without the fields that the list writes itself. Bytes are kept as they are. */
export function withoutListFields(header: Buffer): Buffer {
  const text = header.toString('latin1');
  const fields = text.match(/[^\n]*\n(?:[ \t][^\n]*\n)*|[^\n]+$/g) ?? [];
  return Buffer.from(fields.filter((field) => !replaced.test(field)).join(''), 'latin1');
}

/** What in a header tells that a list must not send the message on. */
export function listObstacle(header: Buffer, address: string): 'loop' | 'auto-reply' | undefined {
  const text = header.toString('latin1').replace(/\r?\n[ \t]+/g, ' ');
  const own = Buffer.from(headerSafe(address)).toString('latin1').toLowerCase();
  const ownId = Buffer.from(listId(address)).toString('latin1').toLowerCase();
  for (const [, name, value] of text.matchAll(/^(List-Id|X-Loop|Delivered-To|Auto-Submitted)[ \t]*:([^\r\n]*)/gim)) {
    const said = value!.trim().toLowerCase();
    switch (name!.toLowerCase()) {
      case 'list-id':
        if (said.includes(ownId)) return 'loop';
        break;
      case 'auto-submitted':
        // RFC 3834 2: answers of machines are for whoever was answered.
        if (said.startsWith('auto-replied') || said.startsWith('auto-notified')) return 'auto-reply';
        break;
      default:
        if (said === own || said === `<${own}>`) return 'loop';
    }
  }
  return undefined;
}
