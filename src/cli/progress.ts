/** How far a long act is: in place on a terminal, else a line now and then, on standard error. Silent where it is short. */
const PLACE_MS = 200
const LINE_MS = 5_000

export interface Progress {
  /** `text` is made only where it is shown. */
  show(text: () => string): void
  end(): void
}

export function createProgress(): Progress {
  const { stderr } = process
  const everyMs = stderr.isTTY ? PLACE_MS : LINE_MS
  const startMs = performance.now()
  let shownMs = startMs
  return {
    show(text) {
      const nowMs = performance.now()
      if (nowMs - shownMs < everyMs) return
      shownMs = nowMs
      stderr.write(stderr.isTTY ? `\r\x1b[K${text()}` : `${text()}\n`)
    },
    end() {
      if (stderr.isTTY && shownMs > startMs) stderr.write('\r\x1b[K')
    },
  }
}

export function bytesText(bytes: number): string {
  if (bytes < 1_024) return `${bytes} B`
  const units = ['KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes / 1_024
  let unit = 0
  while (value >= 1_024 && unit < units.length - 1) {
    value /= 1_024
    unit++
  }
  return `${value.toFixed(1)} ${units[unit]}`
}
