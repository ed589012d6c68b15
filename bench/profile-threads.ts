/** Loaded before a profiled child: its worker threads, the broker among them, are profiled as well. */
import { createRequire, syncBuiltinESMExports } from 'node:module'
import type * as Threads from 'node:worker_threads'

// What `import` gives cannot be written to; what `require` gives can, and the call below carries it over.
const threads: { Worker: typeof Threads.Worker } = createRequire(import.meta.url)('node:worker_threads')
const flags = process.execArgv.filter((argument) => argument.startsWith('--cpu-prof'))

threads.Worker = class extends threads.Worker {
  constructor(file: string | URL, options: Threads.WorkerOptions = {}) {
    super(file, { ...options, execArgv: [...(options.execArgv ?? []), ...flags] })
  }
}
syncBuiltinESMExports()
