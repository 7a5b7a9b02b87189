/** What the tests of this room share: messages and runs of scripts over them. */
import { headerFields, parseMessage, unfold } from '../message/index.js';
import {
  type CompileOptions,
  compileSieve,
  SieveError,
  type SieveInput,
  type SieveMessage,
  type SieveOutcome,
  SieveRunError,
  sieveExtensions,
} from './index.js';

export const allExtensions: ReadonlySet<string> = new Set(sieveExtensions());

/** Line ends are made CRLF. */
export function sieveMessage(text: string): SieveMessage {
  const bytes = Buffer.from(text.replace(/\r?\n/g, '\r\n'));
  return {
    fields: headerFields(bytes, parseMessage(bytes)).map(({ start, valueStart, end }) => ({
      name: bytes.toString('latin1', start, valueStart - 1).trim(),
      value: unfold(bytes.toString('latin1', valueStart, end)).trim(),
    })),
    sizeBytes: bytes.length,
    bytes: (maxBytes) => bytes.subarray(0, maxBytes),
  };
}

export const plainMessage = sieveMessage(`Received: from a.example by b.example; Mon, 1 Jan 2024 00:00:00 +0000
From: Ann <ann@a.example>
To: bob@b.example, Carol <carol@c.example>
Subject: Lunch at noon
Date: Mon, 1 Jan 2024 12:00:00 +0100
Message-ID: <1@a.example>
X-Flag: yes
X-Flag: no

Hello Bob!
`);

export interface RunOptions extends Partial<SieveInput> {
  compile?: Partial<CompileOptions>;
}

/** Compiles a script with all extensions and runs it over the plain message, unless told otherwise. */
export async function runScript(script: string, { compile, ...input }: RunOptions = {}): Promise<SieveOutcome> {
  return await compileSieve(script, { extensions: allExtensions, ...compile }).run({
    envelope: { from: 'ann@a.example', to: ['bob@b.example'] },
    message: plainMessage,
    environment: {},
    nowMs: Date.UTC(2024, 0, 1, 12),
    ...input,
  });
}

/** `line:column message`, or undefined for a script that can be taken. */
export function compileFailure(script: Buffer | string, options: Partial<CompileOptions> = {}): string | undefined {
  try {
    compileSieve(script, { extensions: allExtensions, ...options });
    return undefined;
  } catch (error) {
    if (error instanceof SieveError) return `${error.at.line}:${error.at.column} ${error.message}`;
    throw error;
  }
}

/** `line:column message` of the SieveRunError that a run ends with. */
export async function runFailure(script: string, options: RunOptions = {}): Promise<string> {
  try {
    await runScript(script, options);
  } catch (error) {
    if (error instanceof SieveRunError) return `${error.at?.line}:${error.at?.column} ${error.message}`;
    throw error;
  }
  throw new Error('the run has ended well');
}
