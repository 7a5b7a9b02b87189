/**
 * The form of a backup, bytes only, no files:
 *
 *   head     magic 16 · version 2 · flags 2 (1: encrypted) · length 4 · JSON · SHA-256 of all of this 32
 *   blocks   type 1 · coding 1 · reserved 2 · number 4 · stored length 4 · raw length 4 · CRC-32 of these and the payload 4 · payload
 *   end      SHA-256 of everything before it 32 · magic 16, and then the file ends
 *
 * Blocks of rows come first, then those of blobs outside of the store (`objects.ts`). The last block is the trailer: JSON with counts and digests. Payloads are LZ4 (raw where that would not shorten them); encrypted ones are
 * AES-256-GCM: ciphertext, then the tag of 16 bytes; the number of the block is the nonce, because every backup has a key of its own (HKDF of the cluster
 * key with the head's salt), and head and block header are authenticated with it. Integers are big-endian.
 */
import { createCipheriv, createDecipheriv, createHmac, hash, hkdfSync } from 'node:crypto';
import { crc32 } from 'node:zlib';
import lz4 from 'lz4-napi';
import { type KeyValue, kvLimits } from '../kv/contract.js';
import { BackupDamaged, type TransferTotals } from './contract.js';

export const headMagic = Buffer.from('STARLING BACKUP\n');
export const endMagic = Buffer.from('\nSTARLING ENDED\n');
export const formatVersion = 1;
export const headPrefixBytes = 24;
export const digestBytes = 32;
export const blockHeaderBytes = 20;
const crcAt = 16;
const tagBytes = 16;
const maxHeadJsonBytes = 65_536;
/** Rows of one block, before compression. */
export const blockBytes = 1024 * 1024;
/** No block is longer, raw or stored: checked before memory is taken for it. */
const maxBlockBytes = 4 * 1024 * 1024;
const codingRaw = 0;
const codingLz4 = 1;

export const blockType = { rows: 1, trailer: 2, blob: 3 } as const;
const blockTypes = new Set<number>(Object.values(blockType));

export interface BackupHead {
  /** 32 hex digits, random. */
  backupId: string;
  installationId: string;
  createdAt: string;
  software: string;
  backend: string;
  /** The version of the store that it shows, where it came from a view. */
  storeVersion?: string;
  /** Of encrypted ones: what its key is derived with (base64), and by what the right cluster key is told (16 hex digits). */
  salt?: string;
  keyCheck?: string;
}

export type BackupTrailer = TransferTotals;

export interface Block {
  type: number;
  number: number;
  /** Header without its CRC: what is authenticated. */
  header: Buffer;
  payload: Buffer;
}

/** The key of one backup. */
export function backupKey(clusterKey: Uint8Array, salt: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', clusterKey, salt, 'starling backup 1', 32));
}

/** Tells a key from others without giving it away. */
export function keyCheckOf(key: Buffer): string {
  return createHmac('sha256', key).update('check').digest('hex').slice(0, 16);
}

export function encodeHead(head: BackupHead): Buffer {
  const json = Buffer.from(JSON.stringify(head));
  const bytes = Buffer.alloc(headPrefixBytes + json.length + digestBytes);
  bytes.set(headMagic);
  bytes.writeUInt16BE(formatVersion, 16);
  bytes.writeUInt16BE(head.salt === undefined ? 0 : 1, 18);
  bytes.writeUInt32BE(json.length, 20);
  bytes.set(json, headPrefixBytes);
  bytes.set(hash('sha256', bytes.subarray(0, headPrefixBytes + json.length), 'buffer'), headPrefixBytes + json.length);
  return bytes;
}

/** How long JSON and digest are, from the first `headPrefixBytes`. */
export function headRestBytes(prefix: Buffer): number {
  if (!prefix.subarray(0, headMagic.length).equals(headMagic)) throw new BackupDamaged('this is no backup of Starling');
  const version = prefix.readUInt16BE(16);
  if (version !== formatVersion)
    throw new BackupDamaged(`the backup has format ${version}; this program reads format ${formatVersion}`);
  const length = prefix.readUInt32BE(20);
  if (length > maxHeadJsonBytes) throw new BackupDamaged('the head of the backup is damaged');
  return length + digestBytes;
}

export function decodeHead(whole: Buffer): BackupHead {
  const signed = whole.subarray(0, whole.length - digestBytes);
  if (!hash('sha256', signed, 'buffer').equals(whole.subarray(signed.length)))
    throw new BackupDamaged('the head of the backup is damaged');
  const head = JSON.parse(signed.toString('utf8', headPrefixBytes)) as BackupHead;
  if ((signed.readUInt16BE(18) & 1) === 1 && head.salt === undefined)
    throw new BackupDamaged('the head of the backup is damaged');
  return head;
}

/** Codes payloads, and reads them: with the backup's key where it has one. */
export class BlockCoder {
  readonly #key: Buffer | undefined;
  readonly #headDigest: Buffer;

  constructor(head: Buffer, key: Buffer | undefined) {
    this.#key = key;
    this.#headDigest = head.subarray(head.length - digestBytes);
  }

  /** One block as it is written. */
  async encode(type: number, number: number, raw: Buffer): Promise<Buffer> {
    const packed = await lz4.compress(raw);
    const isShorter = packed.length < raw.length;
    const body = isShorter ? packed : raw;
    const payloadBytes = body.length + (this.#key ? tagBytes : 0);
    const block = Buffer.allocUnsafe(blockHeaderBytes + payloadBytes);
    block[0] = type;
    block[1] = isShorter ? codingLz4 : codingRaw;
    block.writeUInt16BE(0, 2);
    block.writeUInt32BE(number, 4);
    block.writeUInt32BE(payloadBytes, 8);
    block.writeUInt32BE(raw.length, 12);
    if (this.#key) {
      const cipher = createCipheriv('aes-256-gcm', this.#key, nonceOf(number));
      cipher.setAAD(Buffer.concat([this.#headDigest, block.subarray(0, crcAt)]));
      block.set(cipher.update(body), blockHeaderBytes);
      cipher.final();
      block.set(cipher.getAuthTag(), blockHeaderBytes + body.length);
    } else block.set(body, blockHeaderBytes);
    block.writeUInt32BE(blockCrc(block.subarray(0, crcAt), block.subarray(blockHeaderBytes)), crcAt);
    return block;
  }

  /** The content of a block. Throws `BackupDamaged`. */
  decode({ header, payload, number }: Block): Buffer {
    const rawLength = header.readUInt32BE(12);
    const body = this.#key ? this.#decrypt(this.#key, header, payload, number) : payload;
    const raw = header[1] === codingRaw ? body : inflate(body, rawLength, number);
    if (raw.length !== rawLength) throw damagedBlock(number, 'has a wrong length');
    return raw;
  }

  #decrypt(key: Buffer, header: Buffer, payload: Buffer, number: number): Buffer {
    if (payload.length < tagBytes) throw damagedBlock(number, 'is too short');
    const body = payload.subarray(0, payload.length - tagBytes);
    const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(number), { authTagLength: tagBytes });
    decipher.setAAD(Buffer.concat([this.#headDigest, header]));
    decipher.setAuthTag(payload.subarray(body.length));
    try {
      return Buffer.concat([decipher.update(body), decipher.final()]);
    } catch (error) {
      throw new BackupDamaged(`block ${number} of the backup does not decrypt`, { cause: error });
    }
  }
}

function inflate(body: Buffer, rawLength: number, number: number): Buffer {
  // The library allocates whatever the prefix says.
  if (body.length < 4 || body.readUInt32LE(0) !== rawLength) throw damagedBlock(number, 'has a wrong length');
  try {
    return lz4.uncompressSync(body);
  } catch (error) {
    throw damagedBlock(number, `does not decompress (${error instanceof Error ? error.message : String(error)})`);
  }
}

function nonceOf(number: number): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32BE(number, 8);
  return nonce;
}

const blockCrc = (header: Buffer, payload: Buffer): number => crc32(payload, crc32(header));

const damagedBlock = (number: number, what: string) => new BackupDamaged(`block ${number} of the backup ${what}`);

/** Length of the payload that follows a header. Checks what can be checked before it is read. */
export function payloadBytes(header: Buffer, expectedNumber: number): number {
  const stored = header.readUInt32BE(8);
  const isPossible =
    blockTypes.has(header[0]!) &&
    header[1]! <= codingLz4 &&
    header.readUInt32BE(4) === expectedNumber &&
    stored <= maxBlockBytes &&
    header.readUInt32BE(12) <= maxBlockBytes;
  if (!isPossible) throw damagedBlock(expectedNumber, 'is damaged');
  return stored;
}

/** The block of a header (with CRC) and its payload. */
export function checkedBlock(header: Buffer, payload: Buffer): Block {
  const number = header.readUInt32BE(4);
  const signed = header.subarray(0, crcAt);
  if (blockCrc(signed, payload) !== header.readUInt32BE(crcAt)) throw damagedBlock(number, 'is damaged');
  return { type: header[0]!, number, header: signed, payload };
}

/** Gathers rows: key length 2 · value length 4 · key · value. */
export class RowPacker {
  #buffer = Buffer.allocUnsafe(blockBytes);
  #length = 0;

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** Whether the row still fits. An empty packer takes any. */
  add({ key, value }: KeyValue): boolean {
    const needed = 6 + key.length + value.length;
    if (this.#length + needed > this.#buffer.length) return false;
    this.#buffer.writeUInt16BE(key.length, this.#length);
    this.#buffer.writeUInt32BE(value.length, this.#length + 2);
    this.#buffer.set(key, this.#length + 6);
    this.#buffer.set(value, this.#length + 6 + key.length);
    this.#length += needed;
    return true;
  }

  /** The rows so far; the packer begins anew. */
  take(): Buffer {
    const taken = this.#buffer.subarray(0, this.#length);
    this.#buffer = Buffer.allocUnsafe(blockBytes);
    this.#length = 0;
    return taken;
  }
}

/** The rows of a block. They share its memory. */
export function unpackRows(raw: Buffer, number: number): KeyValue[] {
  const rows: KeyValue[] = [];
  for (let at = 0; at < raw.length; ) {
    if (at + 6 > raw.length) throw damagedBlock(number, 'ends within a row');
    const keyEnd = at + 6 + raw.readUInt16BE(at);
    const valueEnd = keyEnd + raw.readUInt32BE(at + 2);
    if (valueEnd > raw.length || valueEnd - keyEnd > kvLimits.maxValueBytes) throw damagedBlock(number, 'ends within a row');
    rows.push({ key: raw.subarray(at + 6, keyEnd), value: raw.subarray(keyEnd, valueEnd) });
    at = valueEnd;
  }
  return rows;
}
