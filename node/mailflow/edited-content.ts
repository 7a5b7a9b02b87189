/**
 * The content of a message that was written already, with another header: a copy, streamed. What was written can only be read when it is linked, so it is an upload for
 * as long; the purge removes it, also when this node dies on the way.
 */
import type { BlobOwner, BlobStore, BlobWriter, PreparedBlob } from '../../store/blobs/contract.js';
import type { KvStore } from '../../store/kv/contract.js';
import type { QueueId } from '../../store/queue/index.js';

/** No account's: nobody finds it among theirs. */
const accountId = 'edited-content';

/**
 * @param front takes the place of the first `frontBytes` bytes.
 * Throws KvError and what the writer throws, which the caller aborts.
 */
export async function copyWithFront(
  { kv, blobs }: { kv: KvStore; blobs: BlobStore },
  written: PreparedBlob,
  writer: BlobWriter,
  { front, frontBytes, queueId }: { front: Buffer; frontBytes: number; queueId: QueueId },
): Promise<PreparedBlob> {
  const owner: BlobOwner = { kind: 'upload', accountId, uploadId: queueId };
  await kv.transact((tx) => blobs.linkPrepared(tx, written, owner), { label: 'edit-content' });
  try {
    await writer.write(front);
    for await (const chunk of blobs.stream(written.id, { start: frontBytes })) await writer.write(chunk);
    return await writer.finish();
  } finally {
    // What can't be unlinked now expires with other uploads.
    await kv.transact(async (tx) => blobs.unlink(tx, written.id, owner), { label: 'edit-content' }).catch(() => undefined);
  }
}
