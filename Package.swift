// swift-tools-version: 6.2
import PackageDescription

// Warnings are errors in our own targets; a dependency's warnings are its own business.
let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .treatAllWarnings(as: .error),
]

let package = Package(
  name: "martlet",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "WebhookSignature", targets: ["WebhookSignature"])
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/swhitty/FlyingFox", from: "0.27.1"),
  ],
  targets: [
    .target(
      name: "WebhookSignature",
      dependencies: [.product(name: "Crypto", package: "swift-crypto")],
      swiftSettings: strict),
    .target(
      name: "Receiver",
      dependencies: [
        "WebhookSignature",
        .product(name: "FlyingFox", package: "FlyingFox"),
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: strict),
    .executableTarget(
      name: "SignatureBenchmark",
      dependencies: ["WebhookSignature", .product(name: "Crypto", package: "swift-crypto")],
      path: "Benchmarks/SignatureBenchmark",
      swiftSettings: strict),
    .executableTarget(
      name: "ReceiverBenchmark",
      dependencies: ["Receiver", "WebhookSignature"],
      path: "Benchmarks/ReceiverBenchmark",
      swiftSettings: strict),
    .testTarget(name: "WebhookSignatureTests", dependencies: ["WebhookSignature"], swiftSettings: strict),
    .testTarget(
      name: "ReceiverTests",
      dependencies: ["Receiver", "WebhookSignature"],
      swiftSettings: strict),
  ]
)
