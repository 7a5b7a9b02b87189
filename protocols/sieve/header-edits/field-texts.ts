/** Names and values of header fields as scripts write them, and as they may stand in a message. */
import { encodeWords } from '../../message/index.js';
import { type CompileContext, type Run, SieveRunError, type Text } from '../contract.js';

const maxNameChars = 76;
/** RFC 5293 4: at least 998. */
const maxValueBytes = 8192;
/** A word that is longer fits into no line (RFC 5322 2.1.1), so it is encoded, too. */
const maxWordChars = 900;

/** RFC 5322 2.2, 3.6.8 (ftext). */
function isFieldName(name: string): boolean {
  return name.length <= maxNameChars && /^[!-9;-~]+$/.test(name);
}

/** The name of a field; what can be none is an error (RFC 5293 4, 5). */
export function fieldNameOf(name: Text, context: CompileContext): (run: Run) => string {
  if (name.constant !== undefined && !isFieldName(name.constant)) context.fail('this is no name of a header field', name.at);
  return (run) => {
    const text = name.of(run);
    if (!isFieldName(text)) throw new SieveRunError('this is no name of a header field', name.at);
    return text;
  };
}

/** The raw value of a field, on one line and in ASCII: what is not is encoded (RFC 2047), so that every next hop takes it. */
export function fieldValueOf(value: Text, context: CompileContext): (run: Run, name: string) => string {
  // What is in the script can be put right there; what comes from a message must not end the run.
  if (value.constant !== undefined && /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|[\r\n](?![\t\n\r ])/.test(value.constant.trimEnd())) {
    context.fail('control characters can not stand in a header field', value.at);
  }
  if (value.constant !== undefined) checkLength(value.constant, (message) => context.fail(message, value.at));
  return (run, name) => {
    const text = value.of(run);
    checkLength(text, (message) => {
      throw new SieveRunError(message, value.at);
    });
    return encoded(oneLine(text), name);
  };
}

function checkLength(text: string, fail: (message: string) => void): void {
  if (Buffer.byteLength(text) > maxValueBytes) fail(`the value of a header field has at most ${maxValueBytes} bytes`);
}

/** Folds and control characters become spaces: no line end gets into a header. */
function oneLine(text: string): string {
  return text.replace(/[\x00-\x08\x0a-\x1f\x7f]+/g, ' ').replace(/^[\t ]+|[\t ]+$/g, '');
}

/** Each row of words that can't stand as they are; the others stay, so that `Zoë <zoe@example.org>` is an address still. */
function encoded(text: string, name: string): string {
  const words = text.split(/([\t ]+)/);
  let out = '';
  for (let i = 0; i < words.length; i += 2) {
    if (canStand(words[i]!)) out += words[i]!;
    else {
      let row = words[i]!;
      // White space between two encoded words is none (RFC 2047 6.2): it is encoded with them.
      while (i + 2 < words.length && !canStand(words[i + 2]!)) {
        row += words[i + 1]! + words[i + 2]!;
        i += 2;
      }
      out += encodeWords(row, out === '' ? name.length + 2 : 0).join(' ');
    }
    out += words[i + 1] ?? '';
  }
  return out;
}

function canStand(word: string): boolean {
  return word.length <= maxWordChars && !/[^\x20-\x7e]/.test(word);
}
