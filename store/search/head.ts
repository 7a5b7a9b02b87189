/** The head of an index: how far it is and which segments it consists of. Whatever changes an index switches its head, in one transaction. */
import { Packr } from 'msgpackr';
import { type StemLanguage, stemLanguages } from './analysis/contract.js';
import { SearchError } from './contract.js';

/** The format of heads, and of the blocks that they name. */
const format = 1;
const packr = new Packr({ useRecords: false });

/** A segment is one run of bytes, cut into blocks: one section behind the other, in this order. */
export const sections = ['postings', 'documents', 'terms', 'lengths', 'stems', 'stemLengths', 'stemLists'] as const;
export type Section = (typeof sections)[number];

export const blockBytes = 16_384;

export interface Segment {
  /** 16 hexadecimal digits, random: never used again. */
  id: string;
  documents: number;
  /** Lengths of the sections, in their order. */
  sectionBytes: readonly number[];
  terms: { count: number; termBytes: number };
  stems: { count: number; termBytes: number };
  /** When its documents were last compared with what messages there are. */
  sweptAtMs: number;
}

export interface SearchHead {
  modseq: number;
  /** Raised by every `add` that brought documents. */
  additions: number;
  languages: readonly StemLanguage[];
  segments: readonly Segment[];
}

export const emptyHead: SearchHead = { modseq: 0, additions: 0, languages: [], segments: [] };

export const bytesOf = (segment: Segment): number => segment.sectionBytes.reduce((sum, bytes) => sum + bytes, 0);

export const blockCount = (segment: Segment): number => Math.ceil(bytesOf(segment) / blockBytes);

export const documentsIn = (head: SearchHead): number => head.segments.reduce((sum, { documents }) => sum + documents, 0);

/** Where a section begins and ends in the bytes of the segment. */
export function placeOf(segment: Segment, section: Section): { from: number; to: number } {
  const nth = sections.indexOf(section);
  let from = 0;
  for (let at = 0; at < nth; at++) from += segment.sectionBytes[at]!;
  return { from, to: from + segment.sectionBytes[nth]! };
}

export function encodeHead({ modseq, additions, languages, segments }: SearchHead): Buffer {
  const rows = segments.map(({ id, documents, sectionBytes, terms, stems, sweptAtMs }) => [
    Buffer.from(id, 'hex'),
    documents,
    [...sectionBytes],
    terms.count,
    terms.termBytes,
    stems.count,
    stems.termBytes,
    Math.floor(sweptAtMs),
  ]);
  return packr.pack([format, modseq, additions, [...languages], rows]);
}

type SegmentRow = [Buffer, number, number[], number, number, number, number, number];

/** Throws SearchError. */
export function decodeHead(bytes: Uint8Array): SearchHead {
  const value = unpacked(bytes);
  if (value[0] !== format) throw new SearchError('unknown-format', `the search index has format ${String(value[0])}`);
  const [, modseq, additions, languages, rows] = value as [number, number, number, string[], SegmentRow[]];
  const segments = rows.map(
    ([id, documents, sectionBytes, terms, termBytes, stems, stemBytes, sweptAtMs]): Segment => ({
      id: Buffer.from(id).toString('hex'),
      documents,
      sectionBytes,
      terms: { count: terms, termBytes },
      stems: { count: stems, termBytes: stemBytes },
      sweptAtMs,
    }),
  );
  return { modseq, additions, languages: stemLanguages.filter((language) => languages.includes(language)), segments };
}

function unpacked(bytes: Uint8Array): unknown[] {
  let value: unknown;
  try {
    value = packr.unpack(bytes);
  } catch (error) {
    throw new SearchError('damaged', 'the head of a search index can not be read', { cause: error });
  }
  if (!Array.isArray(value)) throw new SearchError('damaged', 'the head of a search index is no list');
  return value;
}

/** Blocks that no head names: of a segment that is being written, or of one that another has replaced and that open views may still read. */
export interface LooseSegment {
  state: 'writing' | 'replaced';
  sinceMs: number;
}

const states = ['writing', 'replaced'] as const;

export function encodeLoose({ state, sinceMs }: LooseSegment): Buffer {
  return packr.pack([format, states.indexOf(state), Math.floor(sinceMs)]);
}

/** Throws SearchError `unknown-format`: whoever wrote it is going to clear it. */
export function decodeLoose(bytes: Uint8Array): LooseSegment {
  const [version, state, sinceMs] = unpacked(bytes) as number[];
  if (version !== format) throw new SearchError('unknown-format', `a loose segment has format ${version}`);
  return { state: states[state ?? 0] ?? 'writing', sinceMs: sinceMs ?? 0 };
}
