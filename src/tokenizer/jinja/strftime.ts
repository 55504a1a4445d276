const months = 'January February March April May June July August September October November December'.split(' ');
const days = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');
const pad = (value: number, width = 2) => String(value).padStart(width, '0');
const hour12 = (date: Date) => date.getHours() % 12 || 12;

const codes: Readonly<Record<string, (date: Date) => string>> = {
  Y: (date) => pad(date.getFullYear(), 4),
  y: (date) => pad(date.getFullYear() % 100),
  m: (date) => pad(date.getMonth() + 1),
  B: (date) => months[date.getMonth()]!,
  b: (date) => months[date.getMonth()]!.slice(0, 3),
  d: (date) => pad(date.getDate()),
  e: (date) => String(date.getDate()).padStart(2),
  j: (date) => pad(dayOfYear(date), 3),
  A: (date) => days[date.getDay()]!,
  a: (date) => days[date.getDay()]!.slice(0, 3),
  H: (date) => pad(date.getHours()),
  I: (date) => pad(hour12(date)),
  M: (date) => pad(date.getMinutes()),
  S: (date) => pad(date.getSeconds()),
  p: (date) => (date.getHours() < 12 ? 'AM' : 'PM'),
  F: (date) => strftime(date, '%Y-%m-%d'),
  T: (date) => strftime(date, '%H:%M:%S'),
  '%': () => '%',
};

function dayOfYear(date: Date): number {
  const midnight = (month: number, day: number) => Date.UTC(date.getFullYear(), month, day);
  return (midnight(date.getMonth(), date.getDate()) - midnight(0, 0)) / 86_400_000;
}

/**
 * A date in local time and in English, written as C's strftime does. "%-d" leaves the padding out, as in glibc. Codes
 * that are not known stay as they are.
 */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)([%A-Za-z])/g, (whole, bare: string, code: string) => {
    const written = Object.hasOwn(codes, code) ? codes[code]!(date) : whole;
    return bare === '' || written === whole ? written : written.replace(/^[0 ]+(?=.)/, '');
  });
}
