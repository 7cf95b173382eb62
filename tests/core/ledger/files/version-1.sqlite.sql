-- Tables of ledger version 1, as the first version of this package made them.
CREATE TABLE ugen_catalogue (
  id INTEGER NOT NULL,
  namespace VARCHAR(200) NOT NULL,
  name VARCHAR(200) NOT NULL,
  kind VARCHAR(32),
  mapping_version INTEGER NOT NULL,
  scheme INTEGER NOT NULL,
  created_at FLOAT NOT NULL,
  PRIMARY KEY (id),
  UNIQUE (namespace, name)
);
CREATE TABLE ugen_day (
  namespace VARCHAR(200) NOT NULL,
  day VARCHAR(10) NOT NULL,
  booked INTEGER NOT NULL,
  PRIMARY KEY (namespace, day)
);
CREATE TABLE ugen_intent (
  scope VARCHAR(1024) NOT NULL,
  catalogue_id INTEGER NOT NULL,
  product_id VARCHAR(512) NOT NULL,
  fingerprint VARCHAR(64) NOT NULL,
  "key" VARCHAR(64) NOT NULL,
  job_id VARCHAR(200),
  document TEXT NOT NULL,
  state VARCHAR(16) DEFAULT '' NOT NULL,
  final_failure BOOLEAN DEFAULT 0 NOT NULL,
  reason TEXT,
  credits INTEGER,
  score FLOAT,
  video TEXT,
  manifest TEXT,
  updated_at FLOAT NOT NULL,
  PRIMARY KEY (scope)
);
CREATE INDEX ugen_intent_job ON ugen_intent (job_id);
CREATE INDEX ugen_intent_key ON ugen_intent ("key");
CREATE INDEX ugen_intent_product ON ugen_intent (catalogue_id, product_id);
CREATE TABLE ugen_item (
  run INTEGER NOT NULL,
  product_id VARCHAR(512) NOT NULL,
  seq INTEGER NOT NULL,
  line INTEGER,
  item INTEGER NOT NULL,
  why VARCHAR(16) NOT NULL,
  fingerprint VARCHAR(64) NOT NULL,
  body TEXT NOT NULL,
  picture TEXT,
  picture_digest VARCHAR(64),
  begun BOOLEAN NOT NULL,
  state VARCHAR(16) NOT NULL,
  reason TEXT,
  estimate INTEGER,
  booked INTEGER,
  booked_day VARCHAR(10),
  consumed INTEGER,
  job_id VARCHAR(200),
  how VARCHAR(16),
  score FLOAT,
  started_at FLOAT,
  finished_at FLOAT,
  PRIMARY KEY (run, product_id)
);
CREATE INDEX ugen_item_state ON ugen_item (run, state, seq);
CREATE TABLE ugen_meta (
  name VARCHAR(64) NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (name)
);
CREATE TABLE ugen_picture (
  namespace VARCHAR(200) NOT NULL,
  digest VARCHAR(64) NOT NULL,
  url TEXT NOT NULL,
  uploaded_at FLOAT NOT NULL,
  PRIMARY KEY (namespace, digest)
);
CREATE TABLE ugen_picture_source (
  address VARCHAR(2000) NOT NULL,
  stamp VARCHAR(300) NOT NULL,
  digest VARCHAR(64) NOT NULL,
  PRIMARY KEY (address)
);
CREATE TABLE ugen_product (
  catalogue_id INTEGER NOT NULL,
  product_id VARCHAR(512) NOT NULL,
  fingerprint VARCHAR(64),
  state VARCHAR(16) DEFAULT '' NOT NULL,
  final_failure BOOLEAN DEFAULT 0 NOT NULL,
  reason TEXT,
  job_id VARCHAR(200),
  credits INTEGER,
  score FLOAT,
  video TEXT,
  manifest TEXT,
  updated_at FLOAT,
  seen_run INTEGER,
  seen_as VARCHAR(16),
  lease_owner VARCHAR(64),
  lease_token INTEGER DEFAULT '0' NOT NULL,
  lease_until FLOAT DEFAULT '0' NOT NULL,
  PRIMARY KEY (catalogue_id, product_id)
);
CREATE INDEX ugen_product_lease ON ugen_product (lease_owner);
CREATE TABLE ugen_rejected (
  run INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  line INTEGER,
  item INTEGER NOT NULL,
  product_id VARCHAR(512),
  "column" VARCHAR(200) NOT NULL,
  rule TEXT NOT NULL,
  excerpt TEXT NOT NULL,
  PRIMARY KEY (run, seq)
);
CREATE TABLE ugen_run (
  id INTEGER NOT NULL,
  catalogue_id INTEGER NOT NULL,
  run_id VARCHAR(300) NOT NULL,
  state VARCHAR(16) NOT NULL,
  owner VARCHAR(64),
  lease_until FLOAT DEFAULT '0' NOT NULL,
  source TEXT DEFAULT '' NOT NULL,
  budget INTEGER,
  booked INTEGER DEFAULT '0' NOT NULL,
  rows INTEGER DEFAULT '0' NOT NULL,
  products INTEGER DEFAULT '0' NOT NULL,
  unchanged INTEGER DEFAULT '0' NOT NULL,
  rejected INTEGER DEFAULT '0' NOT NULL,
  filtered INTEGER DEFAULT '0' NOT NULL,
  duplicates INTEGER DEFAULT '0' NOT NULL,
  new INTEGER DEFAULT '0' NOT NULL,
  changed INTEGER DEFAULT '0' NOT NULL,
  disappeared INTEGER DEFAULT '0' NOT NULL,
  created_at FLOAT NOT NULL,
  planned_at FLOAT,
  finished_at FLOAT,
  PRIMARY KEY (id),
  UNIQUE (catalogue_id, run_id)
);
INSERT INTO ugen_meta (name, value) VALUES ('version', '1');
