/** The bytes of a lease row. Format 1 of the first release, which reads the first four elements and passes over what follows. */
import { Packr } from 'msgpackr';

const format = 1;
const packr = new Packr({ useRecords: false });

export interface LeaseRow {
  /** '' when it was given back. */
  holder: string;
  /** Raised by every taking, never lowered. */
  epoch: number;
  renewals: number;
  /** Of a row that was given back: the node for which it was given back. The others let it go first. */
  reservedFor?: string;
}

export function encodeRow({ holder, epoch, renewals, reservedFor }: LeaseRow): Buffer {
  return packr.pack(reservedFor ? [format, holder, epoch, renewals, reservedFor] : [format, holder, epoch, renewals]);
}

/** Throws an Error for a format that this software can't read. */
export function decodeRow(value: Buffer | undefined): LeaseRow | undefined {
  if (!value) return undefined;
  const fields: unknown = packr.unpack(value);
  if (!Array.isArray(fields) || fields[0] !== format) throw new Error('a lease row has an unknown format');
  const row: LeaseRow = { holder: fields[1] as string, epoch: fields[2] as number, renewals: fields[3] as number };
  if (typeof fields[4] === 'string' && fields[4] !== '') row.reservedFor = fields[4];
  return row;
}
