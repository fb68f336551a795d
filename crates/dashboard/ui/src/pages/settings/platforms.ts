// How an application of each platform is set up, with its DSN in place.

interface SetUp {
  name: string;
  install: string;
  code(dsn: string): string;
  /** Raises an error that shows up at once. */
  test: string;
}

export const PLATFORMS: Record<string, SetUp> = {
  javascript: {
    name: 'Browser JavaScript',
    install: 'npm install @sentry/browser',
    code: (dsn) => `import * as Sentry from "@sentry/browser";

Sentry.init({
  dsn: "${dsn}",
  release: "shop@1.0.0",
  environment: "production",
});`,
    test: 'setTimeout(() => { throw new Error("A first event"); });',
  },
  node: {
    name: 'Node.js',
    install: 'npm install @sentry/node',
    code: (dsn) => `// instrument.mjs, loaded first: node --import ./instrument.mjs app.mjs
import * as Sentry from "@sentry/node";

Sentry.init({
  dsn: "${dsn}",
  release: "shop@1.0.0",
  environment: "production",
});`,
    test: 'Sentry.captureException(new Error("A first event"));',
  },
  python: {
    name: 'Python',
    install: 'pip install sentry-sdk',
    code: (dsn) => `import sentry_sdk

sentry_sdk.init(
    dsn="${dsn}",
    release="shop@1.0.0",
    environment="production",
)`,
    test: 'raise RuntimeError("A first event")',
  },
  rust: {
    name: 'Rust',
    install: 'cargo add sentry',
    code: (dsn) => `fn main() {
    let _guard = sentry::init(("${dsn}", sentry::ClientOptions {
        release: sentry::release_name!(),
        environment: Some("production".into()),
        ..Default::default()
    }));
    // the rest of the program
}`,
    test: 'panic!("A first event");',
  },
  go: {
    name: 'Go',
    install: 'go get github.com/getsentry/sentry-go',
    code: (dsn) => `err := sentry.Init(sentry.ClientOptions{
    Dsn:         "${dsn}",
    Release:     "shop@1.0.0",
    Environment: "production",
})
if err != nil {
    log.Fatalf("sentry.Init: %s", err)
}
defer sentry.Flush(2 * time.Second)`,
    test: 'sentry.CaptureException(errors.New("A first event"))',
  },
  java: {
    name: 'Java, Kotlin',
    install: 'implementation("io.sentry:sentry:8.+") // build.gradle.kts',
    code: (dsn) => `Sentry.init(options -> {
    options.setDsn("${dsn}");
    options.setRelease("shop@1.0.0");
    options.setEnvironment("production");
});`,
    test: 'Sentry.captureException(new RuntimeException("A first event"));',
  },
  ruby: {
    name: 'Ruby',
    install: 'bundle add sentry-ruby',
    code: (dsn) => `Sentry.init do |config|
  config.dsn = "${dsn}"
  config.release = "shop@1.0.0"
  config.environment = "production"
end`,
    test: 'Sentry.capture_exception(RuntimeError.new("A first event"))',
  },
  php: {
    name: 'PHP',
    install: 'composer require sentry/sentry',
    code: (dsn) => `\\Sentry\\init([
    'dsn' => '${dsn}',
    'release' => 'shop@1.0.0',
    'environment' => 'production',
]);`,
    test: '\\Sentry\\captureException(new \\RuntimeException("A first event"));',
  },
  csharp: {
    name: '.NET',
    install: 'dotnet add package Sentry',
    code: (dsn) => `SentrySdk.Init(options =>
{
    options.Dsn = "${dsn}";
    options.Release = "shop@1.0.0";
    options.Environment = "production";
});`,
    test: 'SentrySdk.CaptureException(new Exception("A first event"));',
  },
  native: {
    name: 'C, C++ (minidumps)',
    install: 'https://github.com/getsentry/sentry-native/releases',
    code: (dsn) => `sentry_options_t *options = sentry_options_new();
sentry_options_set_dsn(options, "${dsn}");
sentry_options_set_release(options, "shop@1.0.0");
sentry_init(options);`,
    test: 'sentry_capture_event(sentry_value_new_message_event(SENTRY_LEVEL_ERROR, "app", "A first event"));',
  },
  other: {
    name: 'Another, or none',
    install: '# any program that can send HTTP',
    code: (dsn) => `export SENTRY_DSN='${dsn}'`,
    test: '',
  },
};

/** What sends an event without any SDK. */
export function curlOf(dsn: string): string {
  const url = new URL(dsn);
  const address = `${url.protocol}//${url.host}/api${url.pathname}/store/`;
  return `curl -X POST '${address}?sentry_key=${url.username}' -H 'content-type: application/json' \\
  -d '{"message": "A first event", "level": "error", "platform": "other"}'`;
}
