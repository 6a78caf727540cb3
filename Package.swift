// swift-tools-version: 6.2
import PackageDescription

// Warnings are errors in our own targets; a dependency's warnings are its own business.
let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .treatAllWarnings(as: .error),
]

// The schema, in the order of its numbers. The binary carries the files, so `martlet migrate` needs nothing beside itself.
let migrations = [
  "0001_tables", "0002_endpoints", "0003_publish", "0004_lease", "0005_filter", "0006_order", "0007_cut", "0008_rate",
  "0009_claim", "0010_health", "0011_record", "0012_maintain", "0013_operate", "0014_reconcile", "0015_roles",
  "0016_replay", "0017_credentials", "0018_transform", "0019_prove", "0020_tenants",
]

let package = Package(
  name: "martlet",
  platforms: [.macOS(.v15)],
  products: [
    .executable(name: "martlet", targets: ["martlet"]),
    .library(name: "WebhookSignature", targets: ["WebhookSignature"]),
    // For `martlet chaos` alone, which loads it into dispatchers.
    .library(name: "HostClock", type: .dynamic, targets: ["CHostClock"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    .package(url: "https://github.com/swhitty/FlyingFox", from: "0.27.1"),
  ],
  targets: [
    .systemLibrary(name: "CLibPQ", pkgConfig: "libpq", providers: [.apt(["libpq-dev"]), .brew(["libpq"])]),
    .systemLibrary(
      name: "CLibCurl",
      pkgConfig: "libcurl",
      providers: [.apt(["libcurl4-openssl-dev"]), .brew(["curl"])]
    ),
    .target(name: "Postgres", dependencies: ["CLibPQ"], swiftSettings: strict),
    .target(
      name: "Schema",
      path: "sql",
      sources: ["Migrations.swift"],
      resources: migrations.map { .embedInCode("\($0).sql") },
      swiftSettings: strict
    ),
    .target(
      name: "DeliveryCore",
      dependencies: [.product(name: "DequeModule", package: "swift-collections")],
      swiftSettings: strict
    ),
    .target(name: "OutboxStore", dependencies: ["Postgres", "Schema"], swiftSettings: strict),
    .target(name: "HTTPDelivery", dependencies: ["CLibCurl"], swiftSettings: strict),
    .target(
      name: "WebhookSignature",
      dependencies: [.product(name: "Crypto", package: "swift-crypto")],
      swiftSettings: strict
    ),
    .target(
      name: "SecretSealing",
      dependencies: [.product(name: "Crypto", package: "swift-crypto")],
      swiftSettings: strict
    ),
    .target(
      name: "Dispatcher",
      dependencies: [
        "OutboxStore", "HTTPDelivery", "DeliveryCore", "WebhookSignature", "SecretSealing",
        .product(name: "Logging", package: "swift-log"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "FlyingFox", package: "FlyingFox"),
      ],
      swiftSettings: strict
    ),
    .target(
      name: "Receiver",
      dependencies: [
        "WebhookSignature", .product(name: "FlyingFox", package: "FlyingFox"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict
    ),
    .target(name: "EmbeddedPostgres", swiftSettings: strict),
    // Child processes, their logs, and seeds: for the demo and for chaos.
    .target(name: "Rig", dependencies: ["EmbeddedPostgres"], swiftSettings: strict),
    .target(name: "CHostClock"),
    .target(
      name: "Chaos",
      dependencies: ["EmbeddedPostgres", "OutboxStore", "Postgres", "Rig", "WebhookSignature"],
      swiftSettings: strict
    ),
    .target(
      name: "Bench",
      // CLibCurl for the floor that every figure is held against: a bare libcurl loop.
      dependencies: [
        "CLibCurl", "EmbeddedPostgres", "OutboxStore", "Postgres",
        .product(name: "DequeModule", package: "swift-collections"),
      ],
      swiftSettings: strict
    ),
    // The sample set that the demo publishes, in the binary for the same reason as the schema.
    .target(
      name: "SampleEvents",
      path: "Examples",
      sources: ["SampleEvents.swift"],
      resources: [.embedInCode("events.jsonl")],
      swiftSettings: strict
    ),
    .target(
      name: "Demo",
      dependencies: [
        "EmbeddedPostgres", "OutboxStore", "Postgres", "Receiver", "Rig", "SampleEvents", "WebhookSignature",
      ],
      swiftSettings: strict
    ),
    // A process for the tests of EmbeddedPostgres to kill.
    .executableTarget(
      name: "ThrowawayPostgres",
      dependencies: ["EmbeddedPostgres"],
      path: "Tests/ThrowawayPostgres",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "martlet",
      dependencies: [
        "Bench", "Chaos", "Dispatcher", "Receiver", "EmbeddedPostgres", "Demo", "SecretSealing",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "UnixSignals", package: "swift-service-lifecycle"),
      ],
      swiftSettings: strict
    ),
    .target(
      name: "TestSupport",
      dependencies: ["Dispatcher", "Receiver", "EmbeddedPostgres", "SecretSealing"],
      path: "Tests/TestSupport",
      swiftSettings: strict
    ),
    .testTarget(
      name: "IntegrationTests",
      dependencies: [
        "TestSupport", "DeliveryCore", "Dispatcher", "OutboxStore", "Receiver", "SecretSealing", "WebhookSignature",
        "EmbeddedPostgres", "Postgres", "martlet",
      ],
      swiftSettings: strict
    ),
    .testTarget(
      name: "ChaosTests",
      dependencies: ["TestSupport", "Chaos", "Receiver", "Rig", "WebhookSignature", "martlet"],
      swiftSettings: strict
    ),
    .testTarget(name: "HTTPDeliveryTests", dependencies: ["HTTPDelivery", "CLibCurl"], swiftSettings: strict),
    .testTarget(name: "PostgresTests", dependencies: ["Postgres", "EmbeddedPostgres"], swiftSettings: strict),
    .testTarget(name: "DeliveryCoreTests", dependencies: ["DeliveryCore"], swiftSettings: strict),
    .testTarget(name: "WebhookSignatureTests", dependencies: ["WebhookSignature"], swiftSettings: strict),
    .testTarget(name: "SecretSealingTests", dependencies: ["SecretSealing"], swiftSettings: strict),
    .testTarget(name: "ReceiverTests", dependencies: ["Receiver", "WebhookSignature"], swiftSettings: strict),
    .testTarget(
      name: "EmbeddedPostgresTests",
      dependencies: ["EmbeddedPostgres", "ThrowawayPostgres"],
      swiftSettings: strict
    ),
    // Threads that only a simulation's scheduler runs, one at a time.
    .target(name: "CFiber", path: "Tests/CFiber"),
    .testTarget(
      name: "SimulationTests",
      dependencies: [
        "CFiber", "DeliveryCore", "Dispatcher", "EmbeddedPostgres", "HTTPDelivery", "OutboxStore", "Postgres", "Schema",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict
    ),
    // What parses bytes from outside, with generators and oracles: for scripts/fuzz, and a little for every run of the tests.
    .target(
      name: "Fuzzing",
      dependencies: [
        "CLibCurl", "Dispatcher", "HTTPDelivery", "OutboxStore", "Postgres", "Receiver", "SecretSealing",
        "WebhookSignature",
        .product(name: "Crypto", package: "swift-crypto"),
      ],
      path: "Tests/Fuzzing",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "fuzz",
      dependencies: ["Fuzzing", .product(name: "ArgumentParser", package: "swift-argument-parser")],
      path: "Tests/FuzzCommand",
      swiftSettings: strict
    ),
    // What the documents promise is there.
    .testTarget(name: "DocumentTests", swiftSettings: strict),
    .testTarget(name: "FuzzTests", dependencies: ["Dispatcher", "Fuzzing", "Postgres"], swiftSettings: strict),
    .testTarget(name: "DemoTests", dependencies: ["Demo"], swiftSettings: strict),
    .testTarget(name: "BenchTests", dependencies: ["TestSupport", "Bench", "martlet"], swiftSettings: strict),
    .testTarget(
      name: "OutboxStoreTests",
      dependencies: ["OutboxStore", "Postgres", "Schema", "EmbeddedPostgres"],
      swiftSettings: strict
    ),
  ]
)
