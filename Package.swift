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
  targets: [
    .target(name: "EmbeddedPostgres", swiftSettings: strict),
    // A process for those tests to kill.
    .executableTarget(
      name: "ThrowawayPostgres",
      dependencies: ["EmbeddedPostgres"],
      path: "Tests/ThrowawayPostgres",
      swiftSettings: strict
    ),
    .testTarget(
      name: "EmbeddedPostgresTests",
      dependencies: ["EmbeddedPostgres", "ThrowawayPostgres"],
      swiftSettings: strict
    ),
  ]
)
