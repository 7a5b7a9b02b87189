#!/usr/bin/env node
// The `starling` command: compiles where needed, then hands over to node/cli/main.ts.
import { compileIfStale } from './build.mjs';

// Password hashing and file work share libuv's threads; four are too few for both (must be set before the first use).
process.env.UV_THREADPOOL_SIZE ??= '8';
compileIfStale();
await import('../../dist/node/cli/main.js');
