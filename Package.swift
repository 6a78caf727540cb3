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
    .systemLibrary(
      name: "CLibCurl",
      pkgConfig: "libcurl",
      providers: [.apt(["libcurl4-openssl-dev"]), .brew(["curl"])]
    ),
    .target(name: "HTTPDelivery", dependencies: ["CLibCurl"], swiftSettings: strict),
    .executableTarget(name: "HTTPEngineBench", dependencies: ["HTTPDelivery", "CLibCurl"], swiftSettings: strict),
    .testTarget(name: "HTTPDeliveryTests", dependencies: ["HTTPDelivery", "CLibCurl"], swiftSettings: strict),
  ]
)
