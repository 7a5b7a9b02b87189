/**
 * Reads a range of a blob that lies in an external storage: only the groups of frames that hold it, decoded and checked as they arrive.
 */
import { BlobCorrupt, type BlobId } from './contract.js';
import { ExternalDamaged } from './external.js';
import { FrameDecoder, locateFrames, storedBytesOf } from './frame.js';
import type { ExternalHead } from './records.js';
import type { ExternalStorages } from './storages.js';

/** The content `[start, end)`. Throws `ExternalMissing`, `BlobCorrupt`, KvError `unavailable`. */
export async function* externalContents(
  storages: ExternalStorages,
  id: BlobId,
  head: ExternalHead,
  span: { start: number; end: number },
): AsyncGenerator<Buffer, void, undefined> {
  if (span.start >= span.end) return;
  const { index, storageId, place, sizeBytes } = head;
  const stored = locateFrames(index, span.start, span.end);
  const decoder = new FrameDecoder(id, storageId, index.frameBytes, sizeBytes, stored.firstFrame);
  const pieces = storages.storage(place).read(storageId.toString('hex'), stored.start, stored.end, storedBytesOf(index));
  try {
    let position = span.start;
    for await (const piece of pieces) {
      for (const { at, content } of decoder.push(piece, span.start)) {
        const part = content.subarray(Math.max(0, span.start - at), span.end - at);
        position = at + content.length;
        yield part;
        if (position >= span.end) return;
      }
    }
    throw new BlobCorrupt(id, `its frames end at ${position} of ${sizeBytes} bytes`);
  } catch (error) {
    if (error instanceof ExternalDamaged) throw new BlobCorrupt(id, `${error.message} (${place})`);
    throw error;
  }
}
