/**
 * A shortcut through libp2p's layers. As they come, each of five layers puts what passes into a list, takes it out again and tells the next one by an event: for
 * small messages many times the work of the ciphers and of the system calls together. Here bytes go straight through, as long as nothing waits in any layer and
 * all are open; otherwise the layers do it themselves. On the wire nothing is different.
 */
import {
  type Bytes,
  isFreeToRead,
  isFreeToWrite,
  isLayer,
  isYamuxStream,
  type Layer,
  type Layers,
  layersOf,
  type YamuxFrame,
  type YamuxHeader,
} from './layers.js';
import type { Stream } from './libp2p-types.js';

/** Of a Noise message: its length in front, its tag at the end, and what fits in between. */
const lengthBytes = 2;
const tagBytes = 16;
const maxPlainBytes = 65_535 - tagBytes;

const headerBytes = 12;
const dataFrame = 0;
/** Far beyond any window that is granted: what says that it is longer is no frame. */
const maxFrameBytes = 16 * 1024 * 1024;

/** Cuts bytes into pieces whose length is known once their head is there. */
abstract class Cutter {
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #wantedBytes = 1;

  /** `before`: what was left over when this one took over. */
  constructor(before: Uint8Array) {
    if (before.length > 0) this.#keep(Buffer.from(before));
  }

  /** Of the piece that begins at `at`, of which at least `headBytes` are there. Throws when no piece begins like this. */
  protected abstract lengthAt(bytes: Buffer, at: number): number;
  protected abstract readonly headBytes: number;
  protected abstract onPiece(bytes: Buffer, from: number, to: number): void;

  push(chunk: Uint8Array): void {
    let bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    if (this.#waitingBytes > 0) {
      this.#keep(bytes);
      if (this.#waitingBytes < this.#wantedBytes) return;
      bytes = Buffer.concat(this.#waiting, this.#waitingBytes);
      this.#waiting = [];
      this.#waitingBytes = 0;
    }
    let at = 0;
    this.#wantedBytes = this.headBytes;
    while (bytes.length - at >= this.headBytes) {
      const length = this.lengthAt(bytes, at);
      this.#wantedBytes = length;
      if (bytes.length - at < length) break;
      const from = at;
      at += length;
      this.#wantedBytes = this.headBytes;
      this.onPiece(bytes, from, at);
    }
    if (at < bytes.length) this.#keep(bytes.subarray(at));
  }

  #keep(bytes: Buffer): void {
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
  }
}

/** Noise's messages of the bytes below it. */
class Sealed extends Cutter {
  protected readonly headBytes = lengthBytes;

  constructor(
    before: Uint8Array,
    private readonly onSealed: (sealed: Buffer) => void,
  ) {
    super(before);
  }

  protected lengthAt(bytes: Buffer, at: number): number {
    return lengthBytes + bytes.readUInt16BE(at);
  }

  protected onPiece(bytes: Buffer, from: number, to: number): void {
    if (to - from > lengthBytes) this.onSealed(bytes.subarray(from + lengthBytes, to));
  }
}

/** Yamux's frames of the plain bytes. */
class Frames extends Cutter {
  protected readonly headBytes = headerBytes;

  constructor(
    before: Uint8Array,
    private readonly onFrame: (frame: YamuxFrame) => void,
  ) {
    super(before);
  }

  protected lengthAt(bytes: Buffer, at: number): number {
    if (bytes[at] !== 0) throw new Error('Yamux of a version that is not known');
    if (bytes[at + 1] !== dataFrame) return headerBytes;
    const length = bytes.readUInt32BE(at + 8);
    if (length > maxFrameBytes) throw new Error('a frame of Yamux is longer than any window');
    return headerBytes + length;
  }

  protected onPiece(bytes: Buffer, from: number, to: number): void {
    const header: YamuxHeader = {
      type: bytes[from + 1]!,
      flag: bytes.readUInt16BE(from + 2),
      streamID: bytes.readUInt32BE(from + 4),
      length: bytes.readUInt32BE(from + 8),
    };
    this.onFrame(header.type === dataFrame ? { header, data: bytes.subarray(from + headerBytes, to) } : { header });
  }
}

/** How many connections, and listeners on streams, have got it; for tests, which must notice when a new version of libp2p doesn't let it in. */
export const shortcuts = { connections: 0, listeners: 0 };

/**
 * Puts the shortcut into a connection that has just become a muxed one. `noise` is its encrypted stream and `yamux` its muxer. Does nothing when they are not
 * made as expected.
 */
export function takeShortcut(noise: object, yamux: object): void {
  const layers = layersOf(noise, yamux);
  if (!layers) return;
  shortcuts.connections++;
  readShort(layers);
  writeShort(layers);
}

function readShort({ tcp, key, noise, yamux }: Layers): void {
  const frames = new Frames(yamux.decoder.buffer.subarray(), (frame) => {
    const { flag, streamID, type } = frame.header;
    const stream = type === dataFrame && flag === 0 ? yamux.streams.find(({ streamId }) => streamId === streamID) : undefined;
    if (stream) stream.handleData(frame);
    else yamux.handleFrame(frame);
  });
  yamux.onData = (bytes) => frames.push(bytes.subarray());

  const open = (sealed: Buffer): Uint8Array => {
    if (sealed.length < tagBytes) throw new Error('a message of Noise is too short');
    // In the place of the sealed bytes, which nobody else has.
    return noise.handshake.decrypt(sealed, sealed.subarray(0, sealed.length - tagBytes)).subarray();
  };
  let takes: (sealed: Buffer) => void = () => undefined;
  const messages = new Sealed((noise.decoder as { buffer: { subarray(): Uint8Array } }).buffer.subarray(), (sealed) =>
    takes(sealed),
  );
  const takeShort = (sealed: Buffer): void => {
    const plain = open(sealed);
    try {
      if (plain.length > 0) frames.push(plain);
    } catch (error) {
      yamux.abort(error as Error);
      noise.abort(error as Error);
    }
  };
  // Noise asks this one when bytes come by way of the layers.
  noise.decoder = {
    *decode(bytes) {
      const all: Buffer[] = [];
      takes = (sealed) => void all.push(sealed);
      messages.push(bytes.subarray());
      yield* all;
    },
  };
  const receive = tcp.onData.bind(tcp);
  tcp.onData = (bytes) => {
    if (!isFreeToRead(tcp) || !isFreeToRead(key) || !isFreeToRead(noise)) return receive(bytes);
    takes = (sealed) => {
      if (isFreeToRead(noise)) takeShort(sealed);
      // What came before it in the same piece has ended the connection, or made it wait.
      else if (noise.status === 'open') noise.onData(open(sealed));
    };
    try {
      messages.push(key.inboundXor.update(bytes, bytes));
    } catch (error) {
      noise.abort(error as Error);
    }
  };
}

function writeShort({ tcp, key, noise, yamux }: Layers): void {
  const send = yamux.send.bind(yamux);
  yamux.send = (data) => {
    if (!isFreeToWrite(noise) || !isFreeToWrite(key) || !isFreeToWrite(tcp)) return send(data);
    let sealed: Buffer;
    try {
      sealed = seal(noise, data.subarray());
    } catch (error) {
      // It has no numbers left for messages.
      noise.abort(error as Error);
      throw error;
    }
    if (tcp.socket.write(key.outboundXor.update(sealed, sealed))) return true;
    // As the layers would have it: each goes on when the one below says so.
    tcp.writableNeedsDrain = key.writableNeedsDrain = noise.writableNeedsDrain = true;
    for (const stream of yamux.streams) stream.onMuxerNeedsDrain();
    return false;
  };
}

function seal({ handshake }: Layers['noise'], plain: Uint8Array): Buffer {
  const messages = Math.ceil(plain.length / maxPlainBytes);
  const all = Buffer.allocUnsafe(plain.length + messages * (lengthBytes + tagBytes));
  let to = 0;
  for (let from = 0; from < plain.length; from += maxPlainBytes) {
    const sealed = handshake
      .encrypt(plain.length <= maxPlainBytes ? plain : plain.subarray(from, from + maxPlainBytes))
      .subarray();
    to = all.writeUInt16BE(sealed.length, to);
    all.set(sealed, to);
    to += sealed.length;
  }
  return all;
}

/**
 * Gives `take` what comes on a stream, past the stream's own list and event where nothing waits in it. Nobody else may listen to it. `take` must not throw.
 */
export function listenShort(stream: Stream, take: (bytes: Uint8Array) => void): void {
  stream.addEventListener('message', ({ data }) => take(data.subarray()));
  const inside = stream as unknown as Layer & { onData?(bytes: Bytes): void };
  const receive = inside.onData?.bind(stream);
  if (!receive || !isLayer(inside)) return;
  shortcuts.listeners++;
  inside.onData = (bytes) => {
    if (bytes.byteLength > 0 && isFreeToRead(inside)) take(bytes.subarray());
    else receive(bytes);
  };
}

/** The same for what is sent on a new stream of a muxer that has the shortcut. */
export function sendShort(stream: object, yamux: object): void {
  if (!isYamuxStream(stream)) return;
  const muxer = yamux as Layers['yamux'];
  const send = stream.send.bind(stream);
  stream.send = (data) => {
    const length = data.byteLength;
    const isShort = length > 0 && length <= stream.maxMessageSize && length <= stream.sendWindowCapacity && isFreeToWrite(stream);
    if (!isShort) return send(data);
    const frame = Buffer.allocUnsafe(headerBytes + length);
    frame[0] = 0;
    frame[1] = dataFrame;
    frame.writeUInt16BE(stream.getSendFlags(), 2);
    frame.writeUInt32BE(stream.streamId, 4);
    frame.writeUInt32BE(length, 8);
    frame.set(data.subarray(), headerBytes);
    stream.sendWindowCapacity -= length;
    return muxer.send(frame);
  };
}
