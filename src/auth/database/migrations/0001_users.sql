-- Users of ringftpd, for SQLite and PostgreSQL alike. The columns are the keys of a user in the users
-- file (docs/users.md). NULL: the key is not given, so that the section [default] of the users file
-- applies. Lists and tables are JSON: deny '["delete"]', folders '{"/shared": "/srv/shared"}'.
CREATE TABLE ringftpd_users (
    name TEXT NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64),
    password TEXT NOT NULL,
    root TEXT CHECK (substr(root, 1, 1) = '/'),
    access TEXT CHECK (access IN ('read-only', 'read-write', 'upload-only', 'none')),
    deny TEXT CHECK (substr(deny, 1, 1) = '['),
    hide TEXT CHECK (substr(hide, 1, 1) = '['),
    rules TEXT CHECK (substr(rules, 1, 1) = '['),
    quota TEXT,
    quota_files BIGINT CHECK (quota_files >= 0),
    folders TEXT CHECK (substr(folders, 1, 1) = '{'),
    down TEXT,
    up TEXT,
    sessions BIGINT CHECK (sessions >= 0),
    volume TEXT,
    volume_down TEXT,
    volume_up TEXT,
    volume_period TEXT CHECK (volume_period IN ('day', 'week', 'month')),
    system TEXT,
    enabled BOOLEAN CHECK (enabled IN (TRUE, FALSE)),
    expires TEXT,
    networks TEXT CHECK (substr(networks, 1, 1) = '['),
    hours TEXT CHECK (substr(hours, 1, 1) = '[')
);

-- Which of the migrations have been applied.
CREATE TABLE ringftpd_schema (
    version BIGINT NOT NULL PRIMARY KEY
);

INSERT INTO ringftpd_schema (version) VALUES (1);
