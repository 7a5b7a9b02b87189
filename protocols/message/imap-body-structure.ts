/** IMAP's BODY and BODYSTRUCTURE (RFC 9051 7.5.2); latin1 text ready for the output. */
import { formatEnvelope } from './imap-envelope.js';
import { formatNstring, formatString, rawUtf8 } from './imap-strings.js';
import { encodeExtendedValue } from './parameters.js';
import type { Part } from './types.js';

/** `extended` gives BODYSTRUCTURE, without it BODY. */
export function formatBodyStructure(part: Part, extended: boolean): string {
  if (part.children && part.children.length > 0) return formatMultipart(part, part.children, extended);
  const { type, subtype } = part;
  const fields = [
    formatString(rawUtf8(type)),
    formatString(rawUtf8(subtype)),
    formatParameters(part.params),
    formatNstring(part.id),
    formatNstring(part.description),
    formatString(rawUtf8(part.encoding)),
    String(part.size),
  ];
  if (part.message) {
    // What could not be divided has itself as its structure in places; a stand-in keeps that finite.
    const inner = part.message.structure === part ? undefined : part.message.structure;
    fields.push(
      formatEnvelope(part.message.envelope),
      inner ? formatBodyStructure(inner, extended) : emptyText,
      String(part.lines ?? 0),
    );
  } else if (type === 'text') {
    fields.push(String(part.lines ?? 0));
  }
  if (extended) fields.push(formatNstring(part.md5), ...extensionFields(part));
  return `(${fields.join(' ')})`;
}

const emptyText = '("text" "plain" NIL NIL NIL "7bit" 0 0)';

function formatMultipart(part: Part, children: readonly Part[], extended: boolean): string {
  const inner = children.map((child) => formatBodyStructure(child, extended)).join('');
  const fields = [inner, formatString(rawUtf8(part.subtype))];
  if (extended) fields.push(formatParameters(part.params), ...extensionFields(part));
  return `(${fields.join(' ')})`;
}

function extensionFields(part: Part): string[] {
  const disposition = part.disposition
    ? `(${formatString(rawUtf8(part.disposition))} ${formatParameters(part.dispositionParams ?? {})})`
    : 'NIL';
  const language =
    part.language && part.language.length > 0 ? `(${part.language.map((tag) => formatString(rawUtf8(tag))).join(' ')})` : 'NIL';
  return [disposition, language, formatNstring(part.location)];
}

/** Values outside ASCII are written as RFC 2231 has them in the header, `name*` with a charset: what clients expect here. */
function formatParameters(params: Readonly<Record<string, string>>): string {
  const entries = Object.entries(params);
  if (entries.length === 0) return 'NIL';
  const pairs = entries.map(([name, value]) =>
    /^[\x20-\x7e]*$/.test(value)
      ? `${formatString(rawUtf8(name))} ${formatString(value)}`
      : `${formatString(rawUtf8(`${name}*`))} ${formatString(encodeExtendedValue(value))}`,
  );
  return `(${pairs.join(' ')})`;
}
