/** Base64 as SASL profiles carry it: strict (RFC 4648 3), because a lax decoder hides attacks and broken clients alike. */

const form = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** A SASL message longer than this is no honest one (RFC 4954 4: 12288 octets of base64 text). */
export const maxSaslMessageBytes = 9216;

/** Decodes; undefined when a character, the padding, the unused bits or the length (in decoded octets) is wrong. */
export function decodeBase64(text: string, maxBytes: number = maxSaslMessageBytes): Buffer | undefined {
  if (text.length > Math.ceil(maxBytes / 3) * 4 || !form.test(text)) return undefined;
  const bytes = Buffer.from(text, 'base64');
  // RFC 4648 3.5: the bits that the padding leaves over must be zero, so one value has one spelling.
  return bytes.length <= maxBytes && bytes.toString('base64') === text ? bytes : undefined;
}
