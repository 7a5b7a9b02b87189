/** A queued message as the SMTP client takes it: without our own front, and never completed by a node that may have been declared dead. */
import { maxWholeBytes, type OutgoingMessage } from '../../../protocols/smtp/client/contract.js';
import type { BlobStore } from '../../../store/blobs/contract.js';
import { KvError } from '../../../store/kv/contract.js';
import type { ClaimedDestination, QueueRecipient } from '../../../store/queue/index.js';
import { isAscii } from '../addresses.js';

export interface WatchedContent {
  /** Why it could not be read, or not be sent to its end. */
  failure: unknown;
  open(): AsyncIterable<Buffer>;
  /** Of small content. */
  read: (() => Promise<Buffer>) | undefined;
  mayComplete(): boolean;
}

export function watchedContent(
  { blobs, maySend }: { blobs: Pick<BlobStore, 'stream' | 'read'>; maySend?: () => boolean },
  { message }: ClaimedDestination,
): WatchedContent {
  const { blobId, relayOffsetBytes: start } = message;
  const noted = (error: unknown): never => {
    content.failure = error;
    throw error;
  };
  const content: WatchedContent = {
    failure: undefined,
    read: message.sizeBytes - start <= maxWholeBytes ? () => blobs.read(blobId, { start }).catch(noted) : undefined,
    // A process that was stopped in the middle of a conversation wakes here: its claims may be another's by now.
    mayComplete() {
      const may = maySend?.() ?? true;
      if (!may) content.failure = new KvError('unavailable', 'this node may have been declared dead', 'outage');
      return may;
    },
    async *open() {
      try {
        yield* blobs.stream(blobId, { start });
      } catch (error) {
        noted(error);
      }
    },
  };
  return content;
}

export function outgoing(
  { message }: ClaimedDestination,
  recipients: readonly QueueRecipient[],
  { open, read, mayComplete }: WatchedContent,
  eightBit: 'send' | 'return',
): OutgoingMessage {
  return {
    from: message.from,
    recipients: recipients.map(({ address, notify, orcpt }) => ({ address, notify, originalRecipient: typedOriginal(orcpt) })),
    ret: message.ret,
    envelopeId: message.envid,
    eightBit,
    requireTls: message.requiresTls,
    deliverBy: message.deliverBy,
    priority: message.priority,
    body: {
      sizeBytes: message.sizeBytes - message.relayOffsetBytes,
      eightBit: message.body !== '7BIT',
      // RFC 6531 3.4: what came with SMTPUTF8 needs it again only if something in it does; the client looks at the addresses.
      utf8: message.isUtf8 && (message.body !== '7BIT' || !isAscii(message.from)),
      binary: message.body === 'BINARYMIME',
      open,
      ...(read ? { read } : {}),
      mayComplete,
    },
  };
}

/** `orcpt` is kept as `type;address`. */
function typedOriginal(orcpt: string | undefined): { type: string; address: string } | undefined {
  if (orcpt === undefined) return undefined;
  const at = orcpt.indexOf(';');
  return { type: orcpt.slice(0, at), address: orcpt.slice(at + 1) };
}
