/** Why libp2p could not listen, in words. */

/** The system's reason, out of libp2p's errors, which hold one for each address. */
export function whyNotListening(error: unknown): string {
  const texts: string[] = [];
  const collect = (one: unknown): void => {
    if (one instanceof AggregateError) one.errors.forEach(collect);
    if (one instanceof Error) texts.push(one.message);
    if (one instanceof Error && one.cause !== undefined) collect(one.cause);
  };
  collect(error);
  const text = texts.join('; ');
  if (text.includes('EADDRINUSE')) return 'the port is taken';
  if (text.includes('EACCES')) return 'this user may not listen there';
  if (text.includes('EADDRNOTAVAIL')) return 'the address is not one of this machine';
  return text || String(error);
}
