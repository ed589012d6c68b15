/** Values as people see them on a terminal, on which what others sent must not act. */
import { escapeControls } from '../server/log-text.ts'

/** Text without what a terminal would act on: such characters stand as their code. */
export function plain(text: string): string {
  return escapeControls(text)
}

/** A value on one line: text as it is, anything else as JSON. */
export function show(value: unknown): string {
  return plain(typeof value === 'string' ? value : (JSON.stringify(value) ?? ''))
}

/** A member a line, times as dates. */
export function showMembers(object: object): string {
  const rows = Object.entries(object)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => {
      if (name.endsWith('AtMs') && typeof value === 'number')
        return [name.slice(0, -'Ms'.length), new Date(value).toISOString()] as const
      return [name, show(value)] as const
    })
  const width = Math.max(...rows.map(([name]) => name.length)) + 2
  return rows.map(([name, value]) => `${name.padEnd(width)}${value}\n`).join('')
}

export function print(isJson: boolean, value: unknown, text: string): void {
  process.stdout.write(isJson ? `${JSON.stringify(value)}\n` : text)
}
