/** RFC 5429: `ereject` refuses the message in the session, `reject` in whatever way. */
import type { CommandDefinition } from '../contract.js';

function refusal(name: string, isEarly: boolean): CommandDefinition {
  return {
    name,
    requires: [name],
    positional: [{ name: 'reason', type: 'string' }],
    compile(arguments_) {
      const reason = arguments_.text('reason')!;
      return (run) => {
        run.act({ kind: 'reject', reason: reason.of(run), isEarly });
        run.isImplicitKeepCancelled = true;
      };
    },
  };
}

export const reject = refusal('reject', false);
export const ereject = refusal('ereject', true);
