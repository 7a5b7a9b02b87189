/** The messages of a run: each carries a token of its own in its header, by which it is known wherever it turns up. */

const field = 'X-Token: ';

/** A message of about `bodyBytes`. */
export function messageBytes(token: string, from: string, to: readonly string[], bodyBytes: number): Buffer {
  const lines = [
    `From: <${from}>`,
    `To: ${to.map((address) => `<${address}>`).join(', ')}`,
    `Subject: ${token}`,
    `Message-ID: <${token}@client.test>`,
    `${field}${token}`,
    '',
    `${`The body of ${token}. `.repeat(Math.ceil(bodyBytes / 24))}`.replace(/(.{70})/g, '$1\r\n'),
    '',
  ];
  return Buffer.from(lines.join('\r\n'));
}

/** The token in a message's own header; a report that returns a message has none. */
export function tokenOf(content: Buffer): string | undefined {
  const end = content.indexOf('\r\n\r\n');
  const header = content.toString('latin1', 0, end < 0 ? content.length : end);
  const at = header.indexOf(`\r\n${field}`);
  if (at < 0) return undefined;
  const from = at + 2 + field.length;
  const to = header.indexOf('\r\n', from);
  return header.slice(from, to < 0 ? undefined : to);
}
