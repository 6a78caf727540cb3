// The numbered files of this folder, embedded in the binary as they are, so that `martlet migrate` needs nothing beside
// itself. The files are the truth; `psql -f` applies the same ones.

/// One numbered file.
package struct Migration: Sendable {
  package let version: Int
  /// As in the file's name: `0001_tables`.
  package let name: String
  package let sql: String

  private init(_ version: Int, _ name: String, _ bytes: [UInt8]) {
    self.version = version
    self.name = name
    self.sql = String(decoding: bytes, as: UTF8.self)
  }

  /// In the order in which they are applied. The build names a resource after its file, with the first digit as `_`.
  package static let all: [Migration] = [
    Migration(1, "0001_tables", PackageResources._001_tables_sql),
    Migration(2, "0002_endpoints", PackageResources._002_endpoints_sql),
    Migration(3, "0003_publish", PackageResources._003_publish_sql),
    Migration(4, "0004_cut", PackageResources._004_cut_sql),
    Migration(5, "0005_deliver", PackageResources._005_deliver_sql),
    Migration(6, "0006_maintain", PackageResources._006_maintain_sql),
    Migration(7, "0007_operate", PackageResources._007_operate_sql),
    Migration(8, "0008_reconcile", PackageResources._008_reconcile_sql),
    Migration(9, "0009_roles", PackageResources._009_roles_sql),
    Migration(10, "0010_replay", PackageResources._010_replay_sql),
    Migration(11, "0011_credentials", PackageResources._011_credentials_sql),
    Migration(12, "0012_transform", PackageResources._012_transform_sql),
    Migration(13, "0013_prove", PackageResources._013_prove_sql),
    Migration(14, "0014_tenants", PackageResources._014_tenants_sql),
  ]
}
