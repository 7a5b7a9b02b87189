/** Plays the dialogs of this folder against a session over a real socket. README.md tells their format. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { SessionPolicy, SmtpMode } from '../server/handler.js';
import { startTestServer, type TestHandler } from '../testing/server.js';
import { Wire } from '../testing/wire.js';

interface Dialog {
  name: string;
  mode: SmtpMode;
  limits: Record<string, unknown>;
  policy: SessionPolicy | undefined;
  tls: boolean;
  steps: { kind: string; text: string; line: number }[];
}

function parseDialogs(file: string, text: string): Dialog[] {
  const dialogs: Dialog[] = [];
  let current: Dialog | undefined;
  text.split('\n').forEach((raw, index) => {
    const match = /^([a-z]+[~!]?):(?: (.*))?$/.exec(raw);
    if (raw.startsWith('#') || raw === '') return;
    if (!match) throw new Error(`${file}:${index + 1}: not a dialog line: ${raw}`);
    const [, kind, value = ''] = match;
    if (kind === 'dialog') {
      current = { name: value, mode: 'mx', limits: {}, policy: undefined, tls: false, steps: [] };
      dialogs.push(current);
    } else if (!current) throw new Error(`${file}:${index + 1}: a dialog begins with its name`);
    else if (kind === 'mode') current.mode = value as SmtpMode;
    else if (kind === 'limits') current.limits = JSON.parse(value);
    else if (kind === 'policy') current.policy = JSON.parse(value);
    else if (kind === 'implicit') current.tls = true;
    else current.steps.push({ kind: kind!, text: value, line: index + 1 });
  });
  return dialogs;
}

function octets(text: string): string {
  return text
    .replace(/\\(?:x([0-9A-Fa-f]{2})|([rnt0\\]))/g, (_all, hex: string | undefined, letter: string | undefined) =>
      hex ? String.fromCharCode(Number.parseInt(hex, 16)) : ({ r: '\r', n: '\n', t: '\t', '0': '\0' }[letter!] ?? '\\'),
    )
    .replace(/(.)\{\{(\d+)\}\}/g, (_all, character: string, count: string) => character.repeat(Number(count)));
}

function pattern(text: string): RegExp {
  return new RegExp(
    `^${text
      .split('*')
      .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
      .join('.*')}$`,
  );
}

async function play(dialog: Dialog): Promise<void> {
  const { mode, limits, policy, tls } = dialog;
  const server = await startTestServer({ mode, limits, implicitTls: tls, ...(policy ? { policy } : {}) });
  const wire = await Wire.open(server.port, { tls: dialog.tls });
  let packet = '';
  let checked = 0;
  const flush = () => {
    if (packet !== '') wire.send(packet);
    packet = '';
  };
  try {
    for (const step of dialog.steps) {
      const where = `line ${step.line}`;
      if (step.kind !== 'c' && step.kind !== 'c~') flush();
      checked = await playStep(step, where, wire, server.handler, checked, (more) => {
        packet += more;
      });
    }
    flush();
    expect(server.handler.messages.length, 'messages that the dialog does not mention').toBe(checked);
  } finally {
    wire.destroy();
    await server.close();
  }
}

async function playStep(
  step: { kind: string; text: string },
  where: string,
  wire: Wire,
  handler: TestHandler,
  checked: number,
  say: (more: string) => void,
): Promise<number> {
  switch (step.kind) {
    case 'c':
      say(`${octets(Buffer.from(step.text).toString('latin1'))}\r\n`);
      break;
    case 'c~':
      say(octets(Buffer.from(step.text).toString('latin1')));
      break;
    case 's':
      expect(await wire.line(), where).toMatch(pattern(step.text));
      break;
    case 's~': {
      const lines = await wire.reply();
      expect(lines.length > 0 ? lines.at(-1) : undefined, where).toMatch(pattern(`${step.text}*`));
      break;
    }
    case 'tls':
      await wire.startTls();
      break;
    case 'shut':
      wire.halfClose();
      break;
    case 'eof':
      expect(await wire.rest(), where).toBe('');
      break;
    case 'msg':
      expect(handler.messages[checked]?.content.toString('latin1'), where).toBe(
        octets(Buffer.from(step.text).toString('latin1')),
      );
      return checked + 1;
    case 'to':
      expect(handler.messages[checked - 1]?.recipients, where).toEqual(step.text.split(' '));
      break;
    case 'from':
      expect(handler.messages[checked - 1]?.from, where).toBe(step.text);
      break;
    case 'client':
      expect(handler.messages[checked - 1]?.remoteAddress, where).toBe(step.text);
      break;
    case 'forwarded':
      expect(handler.messages[checked - 1]?.forwarded, where).toEqual(
        step.text === 'nothing' ? undefined : JSON.parse(step.text),
      );
      break;
    case 'wait':
      await new Promise((resolve) => setTimeout(resolve, Number(step.text)));
      break;
    default:
      throw new Error(`${where}: unknown step ${step.kind}`);
  }
  return checked;
}

const folder = new URL('.', import.meta.url);
for (const file of readdirSync(folder).filter((name) => name.endsWith('.txt'))) {
  describe(file, () => {
    for (const dialog of parseDialogs(file, readFileSync(new URL(file, folder), 'utf8'))) it(dialog.name, () => play(dialog));
  });
}
