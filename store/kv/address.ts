/**
 * Where a store is, as one line of text, for the local file and the command line:
 * `embedded:DIRECTORY`, `postgres://user:password@host:5432[,host:5432…]/database?…`, `foundationdb:CLUSTERFILE`.
 */

export type StoreAddress =
  | { backend: 'embedded'; directory: string }
  | { backend: 'postgres'; url: string }
  | {
      backend: 'foundationdb';
      clusterFile: string;
      clientLibrary?: string | undefined;
      externalClientDirectory?: string | undefined;
    };

/** Throws `RangeError` with a sentence; it never quotes the text, which may hold a password. */
export function parseStoreAddress(text: string): StoreAddress {
  if (/^postgres(ql)?:\/\//.test(text)) return { backend: 'postgres', url: text };
  const [, scheme, path] = /^(embedded|foundationdb):(.+)$/s.exec(text) ?? [];
  if (scheme === 'embedded') return { backend: 'embedded', directory: path! };
  if (scheme === 'foundationdb') return { backend: 'foundationdb', clusterFile: path! };
  throw new RangeError('a store is embedded:DIRECTORY, postgres://… or foundationdb:CLUSTERFILE');
}

/** For people to read: without a password. */
export function describeStoreAddress(address: StoreAddress): string {
  if (address.backend === 'embedded') return `embedded:${address.directory}`;
  if (address.backend === 'foundationdb') return `foundationdb:${address.clusterFile}`;
  // Not through URL: it refuses several hosts. The password ends at the last @ before the path.
  return address.url.replace(/^(\w+:\/\/[^:@/]*):[^/]*@/, '$1:***@').replace(/([?&](?:password|sslpassword)=)[^&]*/g, '$1***');
}
