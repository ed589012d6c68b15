/** Signals instead of sleeps. */
export interface Signal<T = void> {
  readonly promise: Promise<T>
  readonly resolve: (value: T) => void
}

export function createSignal<T = void>(): Signal<T> {
  const { promise, resolve } = Promise.withResolvers<T>()
  return { promise, resolve }
}

/** Resolves once `reach` was called `count` times. */
export function createCount(count: number): { readonly reached: Promise<void>; readonly reach: () => void } {
  const { promise, resolve } = createSignal()
  let left = count
  return {
    reached: promise,
    reach() {
      if (--left === 0) resolve()
    },
  }
}
