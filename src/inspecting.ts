/** How an object shows itself where it is printed: the same members as in JSON, under its name. */

/** What `console.log` and `util.inspect` call, where there is Node; nothing is imported for it. */
export const INSPECT = Symbol.for('nodejs.util.inspect.custom')

export type Inspect = (value: unknown, options: object) => string

/** An object's members behind the name of its class. */
export function inspectAs(name: string, members: object, options: object, inspect: Inspect): string {
  return `${name} ${inspect(members, options)}`
}
