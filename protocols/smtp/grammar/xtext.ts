/** xtext (RFC 3461 4) and the UTF-8 address forms of RFC 6533 3: how parameters carry what they may not carry as it is. */

// RFC 3461 4: xtext is printable ASCII without "+" and "=", and "+" with two upper-case hexadecimal digits. Lower case is accepted.
const xtextForm = /^(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*$/;
const xtextUtf8Form = /^(?:[!-*,-<>-~\u0080-\u{10ffff}]|\+[0-9A-Fa-f]{2})*$/u;

/** Decodes xtext (RFC 3461 4) to a string of the octets' UTF-8; undefined when malformed. */
export function decodeXtext(text: string, allowUtf8 = false): string | undefined {
  if (!(allowUtf8 ? xtextUtf8Form : xtextForm).test(text)) return undefined;
  if (!text.includes('+')) return text;
  const bytes: number[] = [];
  const raw = Buffer.from(text, 'utf8');
  for (let i = 0; i < raw.length; i++) {
    if (raw[i] === 0x2b) {
      bytes.push(Number.parseInt(raw.toString('latin1', i + 1, i + 3), 16));
      i += 2;
    } else bytes.push(raw[i]!);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return undefined;
  }
}

/** Encodes printable ASCII as xtext; other characters become the hexadecimal of their UTF-8 octets. */
export function encodeXtext(text: string): string {
  let out = '';
  for (const octet of Buffer.from(text, 'utf8')) {
    const plain = octet > 0x20 && octet < 0x7f && octet !== 0x2b && octet !== 0x3d;
    out += plain ? String.fromCharCode(octet) : `+${octet.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
}

/**
 * RFC 6533 3: utf-8-addr-xtext and utf-8-addr-unitext: `\x{HEX}` stands for a character outside printable ASCII (or for `\`, `+`, `=`).
 * Undefined when malformed.
 */
export function decodeUtf8Address(text: string): string | undefined {
  if (!/^(?:[!-*,-<>-[\]-~\u0080-\u{10ffff}]|\\x\{[0-9A-Fa-f]{2,6}\})+$/u.test(text)) return undefined;
  let valid = true;
  const decoded = text.replace(/\\x\{([0-9A-Fa-f]{2,6})\}/g, (_whole, hex: string) => {
    const point = Number.parseInt(hex, 16);
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff) || point < 0x20 || point === 0x7f) {
      valid = false;
      return '';
    }
    return String.fromCodePoint(point);
  });
  return valid ? decoded : undefined;
}

/** The ASCII form of the above. */
export function encodeUtf8Address(address: string): string {
  let out = '';
  for (const character of address) {
    const point = character.codePointAt(0)!;
    const plain = point > 0x20 && point < 0x7f && !'\\+='.includes(character);
    out += plain ? character : `\\x{${point.toString(16).toUpperCase().padStart(2, '0')}}`;
  }
  return out;
}
