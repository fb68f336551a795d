// Dark, light, or what the system has.

export type Theme = 'system' | 'dark' | 'light';

const KEY = 'loom.theme';

function stored(): Theme {
  const value = localStorage.getItem(KEY);
  return value === 'dark' || value === 'light' ? value : 'system';
}

export const theme = $state({ chosen: stored() });

export function applyTheme() {
  if (theme.chosen === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.chosen;
}

export function chooseTheme(chosen: Theme) {
  theme.chosen = chosen;
  localStorage.setItem(KEY, chosen);
  applyTheme();
}
