/** RFC 5228 5.9 `size`. */
import type { Run, TestDefinition } from '../contract.js';

export const size: TestDefinition = {
  name: 'size',
  tags: { over: { group: 'relation' }, under: { group: 'relation' } },
  positional: [{ name: 'limit', type: 'number' }],
  compile(arguments_, context) {
    const relation = arguments_.tagOf('relation');
    if (relation === undefined) context.fail("'size' needs ':over' or ':under'", arguments_.at);
    const limit = arguments_.number('limit')!;
    return (run) => {
      const bytes = sizeOf(run);
      if (bytes === undefined) return false;
      return relation === 'over' ? bytes > limit : bytes < limit;
    };
  },
};

/** Before there is a message, its size is what the client has declared (RFC 1870), as part `size` of the envelope. */
function sizeOf({ input }: Run): number | undefined {
  if (input.message) return input.message.sizeBytes;
  const declared = input.envelope.parts?.['size']?.[0];
  return declared !== undefined && /^\d{1,15}$/.test(declared) ? Number(declared) : undefined;
}
