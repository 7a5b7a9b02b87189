/** The rooms on a simulated node's store. */
import type { BlobStore } from '../../store/blobs/index.js';
import type { Directory } from '../../store/directory/index.js';
import type { MemoryStore } from '../../store/kv/index.js';
import type { OpenMailStore } from '../../store/mail/index.js';
import type { Queue } from '../../store/queue/index.js';

export interface NodeParts {
  kv: MemoryStore;
  blobs: BlobStore;
  mail: OpenMailStore;
  directory: Directory;
  queue: Queue;
}
