/** A blob store that notes under which id each message's content was taken in. */
import type { BlobStore, BlobWriter } from '../../store/blobs/index.js';
import { tokenOf } from './messages.js';

export function observedBlobs(blobs: BlobStore, named: (blobId: string, token: string) => void): BlobStore {
  return new Proxy(blobs, {
    get(target, name) {
      if (name === 'writer') return () => observedWriter(target.writer(), named);
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
}

function observedWriter(writer: BlobWriter, named: (blobId: string, token: string) => void): BlobWriter {
  const chunks: Uint8Array[] = [];
  return {
    get sizeBytes() {
      return writer.sizeBytes;
    },
    write(chunk) {
      chunks.push(chunk);
      return writer.write(chunk);
    },
    async finish() {
      const blob = await writer.finish();
      const token = tokenOf(Buffer.concat(chunks));
      if (token !== undefined) named(blob.id, token);
      return blob;
    },
    abort: () => writer.abort(),
  };
}
