/**
 * The child process of one measurement: `child.ts MODULE FUNCTION OPTIONS` sends what the function returns. It may
 * send word before that it has come as far as it was to.
 */
export type ChildMessage = { kind: 'ready' } | { kind: 'result'; value: unknown }

/** Tells the parent, whose `Child.ready` then resolves. */
export function tellReady(): void {
  process.send?.({ kind: 'ready' } satisfies ChildMessage)
}

async function main(): Promise<void> {
  const [module = '', name = '', options = 'null'] = process.argv.slice(2)
  const exports: Record<string, unknown> = await import(new URL(module, import.meta.url).href)
  const measure = exports[name]
  if (typeof measure !== 'function') throw new Error(`${module} exports no function ${name}`)
  // A promise that nobody will resolve keeps no process alive: it would end as if all were well.
  const onIdle = (): void => {
    console.error(`${name}: the event loop ran empty before it returned`)
    process.exitCode = 1
  }
  process.once('beforeExit', onIdle)
  const value: unknown = await measure(JSON.parse(options))
  process.off('beforeExit', onIdle)
  process.send?.({ kind: 'result', value } satisfies ChildMessage, () => process.disconnect())
}

// Not awaited: modules that import this one would wait for it, and it for them.
if (import.meta.main) void main()
