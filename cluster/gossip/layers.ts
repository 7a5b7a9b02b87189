/**
 * The insides of libp2p's layers under one connection, as far as the shortcut through them looks at them, and whether they are made as expected. From below:
 * TCP, the pre-shared key's cipher, Noise, Yamux and its streams.
 */

/** An array, or a list of arrays that becomes one. */
export interface Bytes {
  readonly byteLength: number;
  subarray(): Uint8Array;
}

/** What all layers have in common. */
export interface Layer {
  status: string;
  readStatus: string;
  writeStatus: string;
  remoteWriteStatus: string;
  sendingData: boolean;
  writableNeedsDrain: boolean;
  readonly readBuffer: Bytes;
  readonly writeBuffer: Bytes;
  listenerCount(type: string): number;
}

interface Cipher {
  update(input: Uint8Array, output: Uint8Array): Uint8Array;
}

export interface TcpLayer extends Layer {
  readonly socket: { write(bytes: Uint8Array): boolean };
  onData(bytes: Uint8Array): void;
}

export interface KeyLayer extends Layer {
  readonly maConn: TcpLayer;
  readonly inboundXor: Cipher;
  readonly outboundXor: Cipher;
}

export interface NoiseLayer extends Layer {
  readonly stream: KeyLayer;
  readonly handshake: {
    encrypt(plain: Uint8Array): Bytes;
    /** Writes into `plain`, or answers with bytes of its own. Throws when the bytes have been tampered with. */
    decrypt(sealed: Uint8Array, plain: Uint8Array): Bytes;
  };
  decoder: { readonly buffer: Bytes } | { decode(bytes: Bytes): Iterable<Uint8Array> };
  onData(plain: Uint8Array): void;
  abort(error: Error): void;
}

export interface YamuxHeader {
  type: number;
  flag: number;
  streamID: number;
  length: number;
}

export interface YamuxFrame {
  header: YamuxHeader;
  data?: Uint8Array;
}

export interface YamuxStreamLayer extends Layer {
  readonly streamId: number;
  readonly maxMessageSize: number;
  sendWindowCapacity: number;
  recvWindowCapacity: number;
  getSendFlags(): number;
  handleData(frame: YamuxFrame): void;
  onMuxerNeedsDrain(): void;
  send(data: Uint8Array | Bytes): boolean;
}

export interface YamuxLayer {
  readonly streams: readonly YamuxStreamLayer[];
  readonly decoder: { readonly buffer: Bytes };
  send(data: Uint8Array | Bytes): boolean;
  onData(bytes: Uint8Array | Bytes): void;
  handleFrame(frame: YamuxFrame): void;
  abort(error: Error): void;
}

export interface Layers {
  tcp: TcpLayer;
  key: KeyLayer;
  noise: NoiseLayer;
  yamux: YamuxLayer;
}

type Loose = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Loose => typeof value === 'object' && value !== null;
const hasBytes = (value: unknown): boolean =>
  isObject(value) && typeof value.byteLength === 'number' && typeof value.subarray === 'function';
const hasFunctions = (value: unknown, ...names: string[]): boolean =>
  isObject(value) && names.every((name) => typeof value[name] === 'function');

/** Whether it is made as expected, and one listens to it. */
export function isLayer(value: unknown): value is Loose {
  if (!isObject(value) || !hasBytes(value.readBuffer) || !hasBytes(value.writeBuffer)) return false;
  const isTold = ['status', 'readStatus', 'writeStatus', 'remoteWriteStatus'].every((name) => typeof value[name] === 'string');
  const isFlagged = typeof value.sendingData === 'boolean' && typeof value.writableNeedsDrain === 'boolean';
  // Somebody else who listens would hear nothing any more.
  return (
    isTold && isFlagged && hasFunctions(value, 'listenerCount') && (value as unknown as Layer).listenerCount('message') === 1
  );
}

/** Undefined when something is not made as expected: another version, another stack of layers. */
export function layersOf(noise: object, yamux: object): Layers | undefined {
  if (!isLayer(noise) || !hasFunctions(noise, 'abort', 'onData') || !hasFunctions(noise.handshake, 'encrypt', 'decrypt'))
    return undefined;
  const { decoder, stream: key } = noise;
  if (!hasFunctions(decoder, 'decode') || !hasBytes((decoder as Loose).buffer)) return undefined;
  if (!isLayer(key) || !hasFunctions(key.inboundXor, 'update') || !hasFunctions(key.outboundXor, 'update')) return undefined;
  const tcp = key.maConn;
  if (!isLayer(tcp) || !hasFunctions(tcp, 'onData') || !hasFunctions(tcp.socket, 'write')) return undefined;
  if (!hasFunctions(yamux, 'send', 'onData', 'handleFrame', 'abort')) return undefined;
  const { decoder: frames, streams } = yamux as Loose;
  if (!isObject(frames) || !hasBytes(frames.buffer) || !Array.isArray(streams)) return undefined;
  return { tcp, key, noise, yamux } as unknown as Layers;
}

/** Whether a new stream of Yamux's is made as expected. */
export function isYamuxStream(value: object): value is YamuxStreamLayer {
  const stream = value as Loose;
  return (
    ['streamId', 'maxMessageSize', 'sendWindowCapacity', 'recvWindowCapacity'].every(
      (name) => typeof stream[name] === 'number',
    ) &&
    hasFunctions(stream, 'getSendFlags', 'handleData', 'onMuxerNeedsDrain', 'send') &&
    hasBytes(stream.writeBuffer) &&
    typeof stream.sendingData === 'boolean'
  );
}

/** Nothing waits in it, and what comes in now may go on at once. */
export const isFreeToRead = (layer: Layer): boolean =>
  layer.status === 'open' &&
  layer.readStatus === 'readable' &&
  layer.remoteWriteStatus === 'writable' &&
  layer.readBuffer.byteLength === 0;

/** Nothing waits in it, and what is to go out may go on at once. */
export const isFreeToWrite = (layer: Layer): boolean =>
  layer.writeStatus === 'writable' &&
  layer.status === 'open' &&
  !layer.writableNeedsDrain &&
  !layer.sendingData &&
  layer.writeBuffer.byteLength === 0;
