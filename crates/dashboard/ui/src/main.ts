// Starts the page.
import { mount } from 'svelte';

import App from './App.svelte';
import './app.css';
import { reportAll } from './lib/report';
import { applyTheme } from './lib/theme.svelte';

reportAll();
applyTheme();
const target = document.getElementById('app');
if (target) mount(App, { target });
