-- guest-agent's rows in SM's database, as the platform had them until January 2023.
-- Applied as often as you like: a row that is there is left as it is. See README.md.
BEGIN TRANSACTION;

INSERT INTO SERVICES
    SELECT NULL, 'yes', 'guest-agent', 'initial', 'initial', 'none', 'none',
        2, 1, 90000, 4, 16, '/var/run/guestAgent.pid'
    WHERE NOT EXISTS (SELECT 1 FROM SERVICES WHERE NAME = 'guest-agent');
UPDATE SERVICES SET PROVISIONED = 'yes' WHERE NAME = 'guest-agent';

INSERT INTO SERVICE_GROUP_MEMBERS
    SELECT NULL, 'yes', 'controller-services', 'guest-agent', 'critical'
    WHERE NOT EXISTS (SELECT 1 FROM SERVICE_GROUP_MEMBERS WHERE SERVICE_NAME = 'guest-agent');
UPDATE SERVICE_GROUP_MEMBERS SET PROVISIONED = 'yes' WHERE SERVICE_NAME = 'guest-agent';

-- Enabled once mtc-agent is enabled, and disabled before mtc-agent is disabled.
INSERT OR IGNORE INTO SERVICE_DEPENDENCY
    SELECT 'action', 'guest-agent', 'not-applicable', 'enable', 'mtc-agent', 'enabled-active'
    EXCEPT SELECT * FROM SERVICE_DEPENDENCY;
INSERT OR IGNORE INTO SERVICE_DEPENDENCY
    SELECT 'action', 'mtc-agent', 'not-applicable', 'disable', 'guest-agent', 'disabled'
    EXCEPT SELECT * FROM SERVICE_DEPENDENCY;

INSERT INTO SERVICE_INSTANCES
    SELECT NULL, 'guest-agent', 'guest-agent', ''
    WHERE NOT EXISTS (SELECT 1 FROM SERVICE_INSTANCES WHERE SERVICE_NAME = 'guest-agent');

-- The actions of /usr/lib/ocf/resource.d/platform/guestAgent: retries after failures, after
-- time-outs, in all; time-out and interval in seconds.
INSERT OR IGNORE INTO SERVICE_ACTIONS
    SELECT 'guest-agent', 'enable', 'ocf-script', 'platform', 'guestAgent', 'start', '',
        2, 2, 2, 20, 30 EXCEPT SELECT * FROM SERVICE_ACTIONS;
INSERT OR IGNORE INTO SERVICE_ACTIONS
    SELECT 'guest-agent', 'disable', 'ocf-script', 'platform', 'guestAgent', 'stop', '',
        1, 1, 1, 20, 30 EXCEPT SELECT * FROM SERVICE_ACTIONS;
INSERT OR IGNORE INTO SERVICE_ACTIONS
    SELECT 'guest-agent', 'audit-enabled', 'ocf-script', 'platform', 'guestAgent', 'monitor', '',
        2, 2, 2, 20, 30 EXCEPT SELECT * FROM SERVICE_ACTIONS;
INSERT OR IGNORE INTO SERVICE_ACTIONS
    SELECT 'guest-agent', 'audit-disabled', 'ocf-script', 'platform', 'guestAgent', 'monitor', '',
        0, 0, 0, 20, 30 EXCEPT SELECT * FROM SERVICE_ACTIONS;

COMMIT;
