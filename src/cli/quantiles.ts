/** Quantiles and plots of what was measured. */

/** The value below which a share of the values lies; 0 where there is none. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) return 0
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number
}

const BARS = '▁▂▃▄▅▆▇█'

/** A line of bars, the highest for `max`. */
export function sparkline(values: readonly number[], max: number): string {
  return values
    .map((value) => {
      if (value <= 0 || max <= 0) return '▁'
      return BARS[Math.min(BARS.length - 1, Math.ceil((value / max) * BARS.length) - 1)] ?? '█'
    })
    .join('')
}

export function round(value: number, digits = 0): number {
  const factor = 10 ** digits
  return Math.round(value * factor) / factor
}
